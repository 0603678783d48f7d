//! The noise side of one picture: which times a run visits and how the latents move between them.
//! Samplers are immutable; which step a picture has reached and what its solver remembers is the picture's own.

pub mod ddim;
pub mod ddpm;
pub mod dpm_solver;
pub mod euler;
pub mod euler_ancestral;
pub mod flow_match_euler;
pub mod heun;
pub mod history;
pub mod lcm;
mod level;
pub mod noise;
mod prediction;
pub mod schedule;
mod sigmas;
mod suited;
pub mod unipc;

use easel_api::images::SamplerKind;
use tch::Tensor;

use self::ddim::Ddim;
use self::ddpm::Ddpm;
use self::dpm_solver::DpmSolver;
use self::euler::Euler;
use self::euler_ancestral::EulerAncestral;
use self::flow_match_euler::FlowMatchEuler;
use self::heun::Heun;
use self::history::{History, Moved, with_noise};
use self::lcm::Lcm;
use self::schedule::NoiseSchedule;
use self::unipc::UniPc;

/// A run of the wanted kind and length.
#[derive(Clone, Debug)]
pub enum Sampler {
    Ddim(Ddim),
    Ddpm(Ddpm),
    Euler(Euler),
    EulerAncestral(EulerAncestral),
    Heun(Heun),
    DpmSolver(DpmSolver),
    UniPc(UniPc),
    Lcm(Lcm),
    FlowMatchEuler(FlowMatchEuler),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    #[error("a picture needs at least 1 step")]
    NoSteps,
    #[error("{steps} steps are too many for a model trained on {trained} time steps")]
    TooManySteps { steps: u32, trained: usize },
    #[error(
        "{steps} steps are too many for lcm, which visits some of the {original} steps that the model was \
             distilled on (original_inference_steps)"
    )]
    TooManyForLcm { steps: u32, original: u32 },
    /// Its formulas divide by zero there, or are nobody's to compare with.
    #[error("{sampler} can't draw with {model}; use {}", listed(instead))]
    Unsuited { sampler: SamplerKind, model: &'static str, instead: Vec<SamplerKind> },
}

fn listed(kinds: &[SamplerKind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

impl Sampler {
    /// For models that are trained to take noise away, by a schedule of how much there is.
    pub fn new(kind: SamplerKind, schedule: &NoiseSchedule, steps: u32) -> Result<Self, SamplerError> {
        match kind {
            SamplerKind::Ddim => Ddim::new(schedule, steps).map(Self::Ddim),
            SamplerKind::Ddpm => Ddpm::new(schedule, steps).map(Self::Ddpm),
            SamplerKind::Euler => Euler::new(schedule, steps).map(Self::Euler),
            SamplerKind::EulerAncestral => EulerAncestral::new(schedule, steps).map(Self::EulerAncestral),
            SamplerKind::Heun => Heun::new(schedule, steps).map(Self::Heun),
            SamplerKind::Dpmpp2m => DpmSolver::new(schedule, steps, false, false).map(Self::DpmSolver),
            SamplerKind::Dpmpp2mKarras => DpmSolver::new(schedule, steps, true, false).map(Self::DpmSolver),
            SamplerKind::Dpmpp2mSde => DpmSolver::new(schedule, steps, false, true).map(Self::DpmSolver),
            SamplerKind::UniPc => UniPc::new(schedule, steps).map(Self::UniPc),
            SamplerKind::Lcm => Lcm::new(schedule, steps).map(Self::Lcm),
            SamplerKind::FlowMatchEuler => {
                Err(suited::refuse(kind, "a model that was not trained by flow matching", schedule))
            }
        }
    }

    /// For models trained by flow matching. `make` is asked once the kind is known to be one of theirs.
    pub fn for_flow(
        kind: SamplerKind,
        make: impl FnOnce() -> Result<FlowMatchEuler, SamplerError>,
    ) -> Result<Self, SamplerError> {
        if kind == SamplerKind::FlowMatchEuler {
            return make().map(Self::FlowMatchEuler);
        }
        let (model, instead) = ("a model trained by flow matching", vec![SamplerKind::FlowMatchEuler]);
        Err(SamplerError::Unsuited { sampler: kind, model, instead })
    }

    /// Model calls of the run: [`SamplerKind::model_calls`] of the steps asked for. A step is one of them.
    pub fn steps(&self) -> usize {
        match self {
            Self::Ddim(ddim) => ddim.steps(),
            Self::Ddpm(ddpm) => ddpm.steps(),
            Self::Euler(euler) => euler.steps(),
            Self::EulerAncestral(euler) => euler.steps(),
            Self::Heun(heun) => heun.steps(),
            Self::DpmSolver(solver) => solver.steps(),
            Self::UniPc(unipc) => unipc.steps(),
            Self::Lcm(lcm) => lcm.steps(),
            Self::FlowMatchEuler(euler) => euler.steps(),
        }
    }

    /// What the model is told about step `step`.
    pub fn timestep(&self, step: usize) -> f32 {
        match self {
            Self::Ddim(ddim) => ddim.timestep(step),
            Self::Ddpm(ddpm) => ddpm.timestep(step),
            Self::Euler(euler) => euler.timestep(step),
            Self::EulerAncestral(euler) => euler.timestep(step),
            Self::Heun(heun) => heun.timestep(step),
            Self::DpmSolver(solver) => solver.timestep(step),
            Self::UniPc(unipc) => unipc.timestep(step),
            Self::Lcm(lcm) => lcm.timestep(step),
            Self::FlowMatchEuler(euler) => euler.timestep(step),
        }
    }

    /// Standard deviation of the first latents.
    pub fn init_noise_sigma(&self) -> f32 {
        match self {
            Self::Euler(euler) => euler.init_noise_sigma(),
            Self::EulerAncestral(euler) => euler.init_noise_sigma(),
            Self::Heun(heun) => heun.init_noise_sigma(),
            // The noise schedule keeps the variance at 1; flow matching starts from noise alone.
            Self::Ddim(_)
            | Self::Ddpm(_)
            | Self::DpmSolver(_)
            | Self::UniPc(_)
            | Self::Lcm(_)
            | Self::FlowMatchEuler(_) => 1.0,
        }
    }

    /// What the model is shown of the latents at step `step`.
    pub fn scale_model_input(&self, latents: &Tensor, step: usize) -> Tensor {
        match self {
            Self::Euler(euler) => euler.scale_model_input(latents, step),
            Self::EulerAncestral(euler) => euler.scale_model_input(latents, step),
            Self::Heun(heun) => heun.scale_model_input(latents, step),
            Self::Ddim(_)
            | Self::Ddpm(_)
            | Self::DpmSolver(_)
            | Self::UniPc(_)
            | Self::Lcm(_)
            | Self::FlowMatchEuler(_) => latents.shallow_clone(),
        }
    }

    /// `picture`, as latents, with as much of `noise` as step `step` finds.
    pub fn add_noise(&self, picture: &Tensor, noise: &Tensor, step: usize) -> Tensor {
        match self {
            Self::Ddim(ddim) => ddim.add_noise(picture, noise, step),
            Self::Ddpm(ddpm) => ddpm.add_noise(picture, noise, step),
            Self::Euler(euler) => euler.add_noise(picture, noise, step),
            Self::EulerAncestral(euler) => euler.add_noise(picture, noise, step),
            Self::Heun(heun) => heun.add_noise(picture, noise, step),
            Self::DpmSolver(solver) => solver.add_noise(picture, noise, step),
            Self::UniPc(unipc) => unipc.add_noise(picture, noise, step),
            Self::Lcm(lcm) => lcm.add_noise(picture, noise, step),
            Self::FlowMatchEuler(euler) => euler.add_noise(picture, noise, step),
        }
    }

    /// The picture without noise, as latents, that the model's output at step `step` means.
    pub fn picture(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        match self {
            Self::Ddim(ddim) => ddim.picture(output, step, latents),
            Self::Ddpm(ddpm) => ddpm.picture(output, step, latents),
            Self::Euler(euler) => euler.picture(output, step, latents),
            Self::EulerAncestral(euler) => euler.picture(output, step, latents),
            Self::Heun(heun) => heun.picture(output, step, latents),
            Self::DpmSolver(solver) => solver.picture(output, step, latents),
            Self::UniPc(unipc) => unipc.picture(output, step, latents),
            Self::Lcm(lcm) => lcm.picture(output, step, latents),
            Self::FlowMatchEuler(euler) => euler.picture(output, step, latents),
        }
    }

    /// Where step `step` leads, given what the steps before it left in `history`. `output` is the model's, guidance
    /// applied. Changes nothing that it is given.
    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        match self {
            Self::Ddim(ddim) => with_noise(ddim.step(output, step, latents), 0.0, history),
            Self::Ddpm(ddpm) => ddpm.step(output, step, latents, history),
            Self::Euler(euler) => with_noise(euler.step(output, step, latents), 0.0, history),
            Self::EulerAncestral(euler) => euler.step(output, step, latents, history),
            Self::Heun(heun) => heun.step(output, step, latents, history),
            Self::DpmSolver(solver) => solver.step(output, step, latents, history),
            Self::UniPc(unipc) => unipc.step(output, step, latents, history),
            Self::Lcm(lcm) => lcm.step(output, step, latents, history),
            Self::FlowMatchEuler(euler) => with_noise(euler.step(output, step, latents), 0.0, history),
        }
    }
}
