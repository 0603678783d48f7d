//! The noise side of one picture: which times a run visits and how the latents move between them.
//! Samplers are immutable; which step a picture has reached is the picture's own.

pub mod ddim;
pub mod euler;
pub mod flow_match_euler;
pub mod schedule;

use easel_api::images::SamplerKind;
use tch::Tensor;

use self::ddim::Ddim;
use self::euler::Euler;
use self::flow_match_euler::FlowMatchEuler;
use self::schedule::NoiseSchedule;

/// A run of the wanted kind and length.
#[derive(Clone, Debug)]
pub enum Sampler {
    Ddim(Ddim),
    Euler(Euler),
    FlowMatchEuler(FlowMatchEuler),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    #[error("a picture needs at least 1 step")]
    NoSteps,
    #[error("{steps} steps are too many for a model trained on {trained} time steps")]
    TooManySteps { steps: u32, trained: usize },
    /// The first step would divide by zero.
    #[error("ddim can't start from pure noise (rescale_betas_zero_snr) with prediction_type epsilon; use euler")]
    EpsilonFromPureNoise,
}

impl Sampler {
    pub fn new(kind: SamplerKind, schedule: &NoiseSchedule, steps: u32) -> Result<Self, SamplerError> {
        match kind {
            SamplerKind::Ddim => Ddim::new(schedule, steps).map(Self::Ddim),
            SamplerKind::Euler => Euler::new(schedule, steps).map(Self::Euler),
        }
    }

    /// For models trained by flow matching, which have one way to be drawn with whatever is asked for.
    pub fn for_flow(
        _kind: SamplerKind,
        make: impl FnOnce() -> Result<FlowMatchEuler, SamplerError>,
    ) -> Result<Self, SamplerError> {
        make().map(Self::FlowMatchEuler)
    }

    pub fn steps(&self) -> usize {
        match self {
            Self::Ddim(ddim) => ddim.steps(),
            Self::Euler(euler) => euler.steps(),
            Self::FlowMatchEuler(euler) => euler.steps(),
        }
    }

    /// What the model is told about step `step`.
    pub fn timestep(&self, step: usize) -> f32 {
        match self {
            Self::Ddim(ddim) => ddim.timestep(step),
            Self::Euler(euler) => euler.timestep(step),
            Self::FlowMatchEuler(euler) => euler.timestep(step),
        }
    }

    /// Standard deviation of the first latents.
    pub fn init_noise_sigma(&self) -> f32 {
        match self {
            // The noise schedule keeps the variance at 1; flow matching starts with noise alone.
            Self::Ddim(_) | Self::FlowMatchEuler(_) => 1.0,
            Self::Euler(euler) => euler.init_noise_sigma(),
        }
    }

    /// What the model is shown of the latents at step `step`.
    pub fn scale_model_input(&self, latents: &Tensor, step: usize) -> Tensor {
        match self {
            Self::Ddim(_) | Self::FlowMatchEuler(_) => latents.shallow_clone(),
            Self::Euler(euler) => euler.scale_model_input(latents, step),
        }
    }

    /// The latents after step `step`. `output` is the model's, guidance applied.
    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        match self {
            Self::Ddim(ddim) => ddim.step(output, step, latents),
            Self::Euler(euler) => euler.step(output, step, latents),
            Self::FlowMatchEuler(euler) => euler.step(output, step, latents),
        }
    }
}
