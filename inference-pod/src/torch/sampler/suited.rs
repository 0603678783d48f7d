//! Which samplers draw with which models, for the sentence that refuses a pair.

use easel_api::images::SamplerKind;

use super::SamplerError;
use super::schedule::{NoiseSchedule, Prediction};

/// The reason of samplers that divide by the share of the picture that is left.
pub(super) const NOISE_OF_PURE_NOISE: &str =
    "a model that starts from pure noise (rescale_betas_zero_snr) with prediction_type epsilon";

/// `sampler` can't draw with `model`, which has this schedule; names those that can.
pub(super) fn refuse(sampler: SamplerKind, model: &'static str, schedule: &NoiseSchedule) -> SamplerError {
    let instead = SamplerKind::ALL.into_iter().filter(|kind| *kind != sampler && draws(*kind, schedule)).collect();
    SamplerError::Unsuited { sampler, model, instead }
}

/// Whatever the number of steps.
fn draws(kind: SamplerKind, schedule: &NoiseSchedule) -> bool {
    match kind {
        SamplerKind::Ddim | SamplerKind::Ddpm | SamplerKind::Lcm => {
            !schedule.zero_snr || schedule.prediction != Prediction::Epsilon
        }
        SamplerKind::EulerAncestral => schedule.prediction != Prediction::Sample,
        SamplerKind::Heun => !schedule.zero_snr,
        SamplerKind::Euler
        | SamplerKind::Dpmpp2m
        | SamplerKind::Dpmpp2mKarras
        | SamplerKind::Dpmpp2mSde
        | SamplerKind::UniPc => true,
        SamplerKind::FlowMatchEuler => false,
    }
}
