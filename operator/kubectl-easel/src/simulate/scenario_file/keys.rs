//! The keys of a scenario file with their defaults. docs/simulate.md says the same in words, and a test compares them.

use easel_planner::simulate::Rates;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Share of the fleet's speed that is asked for, where it matters and the file says nothing.
pub(super) const RHO: f64 = 0.5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) pools: Vec<Pool>,
    #[serde(default)]
    pub(super) execution: ExecutionKeys,
    #[serde(default)]
    pub(super) load: LoadKeys,
    #[serde(default)]
    pub(super) slo: SloKeys,
    #[serde(default)]
    pub(super) arrivals: ArrivalsKeys,
    pub(super) requests: Option<usize>,
    #[serde(default)]
    pub(super) faults: FaultKeys,
    pub(super) batch: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) name: Option<String>,
    pub(super) replicas: Option<Replicas>,
    pub(super) min: Option<u32>,
    pub(super) max: Option<u32>,
    #[serde(default = "one")]
    pub(super) speed: f64,
    #[serde(default)]
    pub(super) usd_per_hour: Number,
    #[serde(default)]
    pub(super) capacity: CapacityKey,
    #[serde(default = "one_slot")]
    pub(super) resident_slots: usize,
    #[serde(default)]
    pub(super) host_slots: usize,
    #[serde(default = "start")]
    pub(super) start_s: f64,
    pub(super) batch: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Replicas {
    Fixed(u32),
    Between { min: u32, max: u32 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    #[serde(default)]
    min: u32,
    max: u32,
}

/// By hand: an untagged enum could not say what is wrong.
impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_object() {
            let Between { min, max } = serde_json::from_value(value).map_err(D::Error::custom)?;
            return Ok(Self::Between { min, max });
        }
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Self::Fixed).ok_or_else(|| D::Error::custom(format!("{value} is neither a number nor {{min, max}}")))
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) enum CapacityKey {
    #[default]
    #[serde(rename = "on-demand", alias = "OnDemand")]
    OnDemand,
    #[serde(rename = "spot", alias = "Spot")]
    Spot,
}

/// A number as it is written.
#[derive(Debug)]
pub(super) struct Number(pub(super) String);

impl Default for Number {
    fn default() -> Self {
        Self("0".into())
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => Ok(Self(number.to_string())),
            Value::String(text) => Ok(Self(text)),
            other => Err(D::Error::custom(format!("{other} is not a number"))),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ExecutionKeys {
    pub(super) seconds_at_30_steps_1_image: f64,
    pub(super) first_image_share: f64,
    pub(super) batch: Option<u32>,
}

impl Default for ExecutionKeys {
    fn default() -> Self {
        Self { seconds_at_30_steps_1_image: 9.0, first_image_share: 0.25, batch: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are the file's keys, which say their unit")]
pub(super) struct LoadKeys {
    pub(super) base_model_s: f64,
    pub(super) lora_s: f64,
    pub(super) host_to_gpu_s: f64,
}

impl Default for LoadKeys {
    fn default() -> Self {
        Self { base_model_s: 22.0, lora_s: 4.4, host_to_gpu_s: 3.0 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SloKeys {
    pub(super) factor: f64,
    pub(super) slack_s: f64,
}

impl Default for SloKeys {
    fn default() -> Self {
        Self { factor: 3.0, slack_s: 5.0 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ArrivalsKeys {
    pub(super) process: Option<ProcessKey>,
    pub(super) rho: Option<f64>,
    /// Of a curve.
    pub(super) mean_rps: Option<f64>,
    pub(super) points: Vec<(f64, f64)>,
}

/// Events an hour of each replica, and what they do.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FaultKeys {
    pub(super) loss_per_hour: f64,
    pub(super) reclaim_per_hour: f64,
    pub(super) notice_s: f64,
    pub(super) slow_per_hour: f64,
    pub(super) slow_factor: f64,
    pub(super) slow_s: f64,
    pub(super) torn_download_per_hour: f64,
}

impl Default for FaultKeys {
    fn default() -> Self {
        let Rates { loss, reclaim, notice, slow, slow_factor, slow_lasts, torn_download } = Rates::default();
        Self {
            loss_per_hour: loss,
            reclaim_per_hour: reclaim,
            notice_s: notice.secs(),
            slow_per_hour: slow,
            slow_factor,
            slow_s: slow_lasts.secs(),
            torn_download_per_hour: torn_download,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProcessKey {
    Trace,
    Poisson,
    Curve,
}

/// A pod with a large image on a node that is there.
fn start() -> f64 {
    60.0
}

fn one() -> f64 {
    1.0
}

fn one_slot() -> usize {
    1
}
