//! What came of runs, as the JSON that programs read. Its keys are a promise: docs/simulate.md lists them.

use easel_planner::simulate::{Arrivals, Bucket, ModelShare, Outcome, Process};
use easel_planner::units::MicroUsd;
use serde::Serialize;

use super::flags::BOUND;

/// One policy with one seed. What a bound has none of is null.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) policy: String,
    pub(crate) seed: u64,
    /// Null where the trace says when requests come.
    pub(crate) rho: Option<f64>,
    pub(crate) requests: u64,
    pub(crate) slo_attainment: f64,
    pub(crate) weighted_attainment: f64,
    #[serde(flatten)]
    pub(crate) drawn: Drawn,
    pub(crate) by_images: Vec<Share>,
    pub(crate) worst_model: Option<Model>,
    pub(crate) models_of_100_requests: Vec<Model>,
    pub(crate) tail: Option<Share>,
}

/// What only a policy has.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Drawn {
    pub(crate) goodput_rps: Option<f64>,
    pub(crate) mean_s: Option<f64>,
    pub(crate) p50_s: Option<f64>,
    pub(crate) p95_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
    pub(crate) switches: Option<u64>,
    pub(crate) switch_share: Option<f64>,
    pub(crate) fetches_ahead: Option<u64>,
    pub(crate) put_aside: Option<u64>,
    pub(crate) gpu_busy_share: Option<f64>,
    pub(crate) load_share: Option<f64>,
    pub(crate) gpu_hours: Option<f64>,
    pub(crate) cost_usd: Option<f64>,
    pub(crate) drawing_usd: Option<f64>,
    pub(crate) loading_usd: Option<f64>,
    pub(crate) idle_usd: Option<f64>,
    pub(crate) images_in_slo: Option<u64>,
    pub(crate) usd_per_image_in_slo: Option<f64>,
    pub(crate) rejected: Option<u64>,
    pub(crate) late: Option<u64>,
    pub(crate) lost: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Share {
    /// Images a request; null where that is not the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<u32>,
    pub(crate) requests: u32,
    pub(crate) in_slo: u32,
    pub(crate) slo_attainment: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) model: String,
    #[serde(flatten)]
    pub(crate) share: Share,
}

impl Report {
    pub(crate) fn of(outcome: Outcome, arrivals: Arrivals, seed: u64) -> Self {
        let drawn = drawn(&outcome);
        let models: Vec<Model> = outcome.models.into_iter().map(model).collect();
        Self {
            policy: outcome.policy,
            seed,
            rho: rho(arrivals),
            requests: outcome.requests,
            slo_attainment: outcome.slo_attainment,
            weighted_attainment: outcome.weighted_attainment,
            drawn,
            by_images: outcome.by_images.into_iter().map(|bucket| share(bucket, Some(bucket.images))).collect(),
            worst_model: models.first().cloned(),
            models_of_100_requests: models,
            tail: Some(share(outcome.tail, None)),
        }
    }

    pub(crate) fn bound(requests: u64, counted: f64, weighted: f64, arrivals: Arrivals, seed: u64) -> Self {
        Self {
            policy: BOUND.into(),
            seed,
            rho: rho(arrivals),
            requests,
            slo_attainment: counted,
            weighted_attainment: weighted,
            ..Self::default()
        }
    }
}

fn drawn(outcome: &Outcome) -> Drawn {
    Drawn {
        goodput_rps: Some(outcome.goodput_rps),
        mean_s: Some(outcome.mean.secs()),
        p50_s: Some(outcome.p50.secs()),
        p95_s: Some(outcome.p95.secs()),
        p99_s: Some(outcome.p99.secs()),
        switches: Some(outcome.switches),
        switch_share: Some(outcome.switch_share),
        fetches_ahead: Some(outcome.fetches),
        put_aside: Some(outcome.put_aside),
        gpu_busy_share: Some(outcome.gpu_busy_share),
        load_share: Some(outcome.load_share),
        gpu_hours: Some(outcome.gpu_hours),
        cost_usd: Some(dollars(outcome.cost)),
        drawing_usd: Some(dollars(outcome.drawing_cost)),
        loading_usd: Some(dollars(outcome.loading_cost)),
        idle_usd: Some(dollars(outcome.idle_cost)),
        images_in_slo: Some(outcome.images_in_slo),
        usd_per_image_in_slo: Some(outcome.usd_per_image_in_slo),
        rejected: Some(outcome.rejected),
        late: Some(outcome.late),
        lost: Some(outcome.lost),
    }
}

fn rho(arrivals: Arrivals) -> Option<f64> {
    match arrivals.process {
        Process::Poisson => Some(arrivals.rho),
        Process::Trace | Process::Curve => None,
    }
}

fn model(ModelShare { model, share: bucket }: ModelShare) -> Model {
    Model { model, share: share(bucket, None) }
}

fn share(bucket: Bucket, images: Option<u32>) -> Share {
    Share { images, requests: bucket.requests, in_slo: bucket.in_slo, slo_attainment: bucket.attainment() }
}

/// To be printed; a bill is computed in millionths.
fn dollars(cost: MicroUsd) -> f64 {
    cost.micros() as f64 / 1e6
}
