//! What the gateway counts.
//! Labels are enums and names of models that exist; never an error's text, a pod or a prompt.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a refusal to a long wait: 10 ms to 164 s, doubling.
fn seconds_buckets() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.01, 2.0, 15))
}

/// Clones share their counts.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) seconds: Family<ModelLabel, Histogram, fn() -> Histogram>,
    pub(super) in_flight: Gauge,
    pub(super) waiting: Gauge,
    pub(super) faults: Family<FaultLabel, Counter>,
    pub(super) retries: Family<FaultLabel, Counter>,
    pub(super) resumed: Counter,
    pub(super) snapshots: Counter,
    pub(super) snapshots_dropped: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    /// `namespace/name`, or empty for a request that came to no model.
    pub(super) model: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FaultLabel {
    pub(super) reason: FaultReason,
}

/// How a request ended, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Ok,
    /// The client's fault: 4xx but 429.
    Refused,
    QueueFull,
    /// 503: nobody could take it.
    Unavailable,
    /// 504.
    Late,
    /// Any other 5xx.
    Failed,
    /// The client hung up.
    Cancelled,
}

/// Why a pod did not draw what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FaultReason {
    Unreachable,
    Busy,
    Draining,
    Moved,
    NotResident,
    Lost,
    Failed,
    Refused,
    Late,
}

impl Outcome {
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            0..400 => Self::Ok,
            429 => Self::QueueFull,
            400..500 => Self::Refused,
            503 => Self::Unavailable,
            504 => Self::Late,
            500.. => Self::Failed,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FaultReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Moved => "moved",
            Self::NotResident => "not_resident",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for FaultReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds_buckets),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            faults: Family::default(),
            retries: Family::default(),
            resumed: Counter::default(),
            snapshots: Counter::default(),
            snapshots_dropped: Counter::default(),
        }
    }
}

impl GatewayMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self { requests, seconds, in_flight, waiting, faults, retries, resumed, snapshots, snapshots_dropped } =
            self;
        let registry = registry.sub_registry_with_prefix("easel_gateway");
        registry.register("requests", "Requests answered, by model and outcome", requests.clone());
        registry.register("request_seconds", "From a request's head to its answer, by model", seconds.clone());
        registry.register("in_flight", "Requests being answered", in_flight.clone());
        registry.register("waiting", "Requests that wait for a pod", waiting.clone());
        registry.register("pod_faults", "Answers of pods that were no picture, by reason", faults.clone());
        registry.register("retries", "Requests put back to be sent again, by the fault", retries.clone());
        registry.register("resumed", "Requests sent to a pod with snapshots to go on from", resumed.clone());
        registry.register("snapshots", "Snapshots of pictures that pods sent and that were kept", snapshots.clone());
        let dropped = "Snapshots thrown away, because --snapshot-memory-mib was used up";
        registry.register("snapshots_dropped", dropped, snapshots_dropped.clone());
    }
}

/// Counts one up for as long as it lives.
#[derive(Debug)]
pub(super) struct Up(Gauge);

impl Up {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.dec();
    }
}
