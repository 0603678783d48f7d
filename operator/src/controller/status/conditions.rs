//! One condition as Kubernetes keeps it, and how it follows on the one before.
//! Knows what turns and what only changes its words.

use easel_crds::condition::{ConditionType, Reason, is_documented};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{Timestamp, Unit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    True,
    False,
    Unknown,
}

/// What is so, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub kind: ConditionType,
    pub is: Is,
    pub reason: Reason,
    pub message: String,
}

impl Finding {
    pub(crate) fn new(kind: ConditionType, is: Is, reason: Reason, message: impl Into<String>) -> Self {
        debug_assert!(is_documented(kind, reason), "{kind} {reason} is in no table that users can read");
        Self { kind, is, reason, message: message.into() }
    }
}

/// The sum: true when all parts are, else the first part that is not, in its own words.
pub(crate) fn ready(parts: &[&Finding]) -> Finding {
    let missing =
        parts.iter().find(|part| part.is == Is::False).or_else(|| parts.iter().find(|part| part.is != Is::True));
    match missing {
        None => Finding::new(ConditionType::Ready, Is::True, Reason::AllPartsReady, "pictures are drawn"),
        Some(part) => Finding::new(ConditionType::Ready, Is::False, part.reason, part.message.clone()),
    }
}

/// As Kubernetes keeps them: the time is that of the last turn of the status.
pub(crate) fn render(
    findings: &[&Finding],
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |finding: &&Finding| {
        let Finding { kind, is, reason, message } = finding;
        let (type_, status) = (kind.to_string(), format!("{is:?}"));
        let same = before.iter().find(|former| former.type_ == type_ && former.status == status);
        Condition {
            last_transition_time: same.map_or_else(|| seconds(now), |former| former.last_transition_time.clone()),
            type_,
            status,
            reason: reason.to_string(),
            message: message.clone(),
            observed_generation: generation,
        }
    };
    findings.iter().map(condition).collect()
}

/// The API server keeps whole seconds.
fn seconds(now: Timestamp) -> Time {
    Time(now.round(Unit::Second).unwrap_or(now))
}

/// What an administrator should look at. Waiting is not that.
pub(crate) fn is_warning(status: &str, reason: &str) -> bool {
    let waits = [
        Reason::ResolvingTag,
        Reason::Fetching,
        Reason::Verifying,
        Reason::AwaitingReplica,
        Reason::AwaitingPlan,
        Reason::Parked,
        Reason::Asleep,
        Reason::Starting,
        Reason::InUse,
    ];
    status != "True" && !waits.iter().any(|waiting| waiting.to_string() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(is: Is, message: &str) -> Finding {
        Finding::new(ConditionType::Serving, is, Reason::Starting, message)
    }

    #[test]
    fn a_conditions_time_is_that_of_its_last_turn() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = render(&[&finding(Is::False, "a")], &[], Some(1), at(10));
        let words = render(&[&finding(Is::False, "b")], &first, Some(2), at(20));
        assert_eq!((words[0].last_transition_time.0, &*words[0].message), (at(10), "b"));
        assert_eq!(words[0].observed_generation, Some(2));
        let turned = render(&[&finding(Is::True, "b")], &words, Some(2), at(30));
        assert_eq!(turned[0].last_transition_time.0, at(30));
    }

    #[test]
    fn ready_is_the_first_part_that_is_false_before_the_first_that_is_unknown() {
        let (yes, unknown, no) = (finding(Is::True, "y"), finding(Is::Unknown, "u"), finding(Is::False, "n"));
        assert_eq!(ready(&[&yes, &yes]).is, Is::True);
        assert_eq!(ready(&[&yes, &unknown, &no]).message, "n");
        assert_eq!((ready(&[&unknown, &yes]).is, &*ready(&[&unknown, &yes]).message), (Is::False, "u"));
    }
}
