//! What clients ask of one gateway: JSON lines from every gateway to the leader, which plans by them.
//! Counts only; how many replicas they are worth is the planner's to say.

use serde::{Deserialize, Serialize};

use crate::engine::ModelId;

/// Of a gateway's control port. `GET` answers with one [`DemandReport`] a line: at once, whenever the first request waits for
/// a model, and at least every second.
pub const DEMAND_PATH: &str = "/operator/v1/demand";

/// Models that nobody has asked for within a minute are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandReport {
    pub models: Vec<ModelDemand>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDemand {
    pub id: ModelId,
    /// Requests that wait in the gateway and have no pod.
    pub waiting: u32,
    /// Model calls of those: steps × pictures.
    pub waiting_calls: u64,
    /// Requests admitted within the last 60 s.
    pub arrived: u32,
    pub arrived_calls: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_of_json_and_reads_back() {
        let demand = ModelDemand {
            id: ModelId::new("demo", "tiny"),
            waiting: 2,
            waiting_calls: 60,
            arrived: 5,
            arrived_calls: 150,
        };
        let report = DemandReport { models: vec![demand] };
        let text = serde_json::to_string(&report).unwrap();
        let expected =
            r#"{"models":[{"id":"demo/tiny","waiting":2,"waiting_calls":60,"arrived":5,"arrived_calls":150}]}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<DemandReport>(&text).unwrap(), report);
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_over_and_a_missing_one_is_not() {
        let later = r#"{"models":[],"classes":[]}"#;
        assert_eq!(serde_json::from_str::<DemandReport>(later).unwrap(), DemandReport::default());
        assert!(serde_json::from_str::<DemandReport>(r#"{"models":[{"id":"demo/tiny"}]}"#).is_err());
    }
}
