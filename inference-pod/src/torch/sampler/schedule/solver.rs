//! What a checkpoint's scheduler file says of the way through its noise levels.
//! Each sampler reads what its class in diffusers reads; what no sampler here computes is refused by name.

use serde::Deserialize;

use crate::pipeline::LoadError;
use crate::torch::config::Config;

/// `original_inference_steps` of diffusers' `LCMScheduler`.
const LCM_STEPS: u32 = 50;
/// `timestep_scaling` of the same.
const LCM_SCALING: f32 = 10.0;

#[derive(Clone, Debug, PartialEq)]
pub struct SolverOptions {
    /// DPM-Solver++, `UniPC`: of how many outputs of the model a step is made, 1 to 3.
    pub order: usize,
    pub kind: SolverType,
    /// DPM-Solver++, `UniPC`: whether the last steps of a short run have a lower order.
    pub lower_order_final: bool,
    /// DPM-Solver++: whether the last step is always one of Euler's.
    pub euler_at_final: bool,
    pub final_sigma: FinalSigma,
    /// Euler, Heun, DPM-Solver++, `UniPC`: noise levels as in <https://arxiv.org/abs/2206.00364>.
    pub karras: bool,
    /// `UniPC`: steps whose result is not corrected.
    pub disable_corrector: Vec<usize>,
    /// DDPM: how much noise is added.
    pub variance: Variance,
    /// LCM: how many steps the model was distilled on, some of which are visited.
    pub original_steps: u32,
    /// LCM: what times are multiplied by on the way to the boundary condition.
    pub timestep_scaling: f32,
}

/// `solver_type`. One file may be read by several solvers, and each has its own two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    Midpoint,
    Heun,
    Bh1,
    Bh2,
    /// DEIS'.
    Logrho,
}

/// Where the last step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    Zero,
    /// At the noise of the first trained step.
    SigmaMin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    FixedSmall,
    FixedSmallLog,
    FixedLarge,
}

/// diffusers' defaults.
impl Default for SolverOptions {
    fn default() -> Self {
        Self {
            order: 2,
            kind: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            final_sigma: FinalSigma::Zero,
            karras: false,
            disable_corrector: Vec::new(),
            variance: Variance::FixedSmall,
            original_steps: LCM_STEPS,
            timestep_scaling: LCM_SCALING,
        }
    }
}

impl SolverOptions {
    pub(super) fn take(config: &mut Config) -> Result<Self, LoadError> {
        let default = Self::default();
        let order = config.take_or("solver_order", default.order)?;
        if !(1..=3).contains(&order) {
            return Err(config.unsupported("solver_order", order));
        }
        // The output would mean the noise, which the solvers here turn into a picture first.
        if !config.take_or("predict_x0", true)? {
            return Err(config.unsupported("predict_x0", false));
        }
        Ok(Self {
            order,
            kind: config.take("solver_type")?.unwrap_or(default.kind),
            lower_order_final: config.take_or("lower_order_final", default.lower_order_final)?,
            euler_at_final: config.take_or("euler_at_final", default.euler_at_final)?,
            final_sigma: config.take_or("final_sigmas_type", default.final_sigma)?,
            karras: config.take_or("use_karras_sigmas", default.karras)?,
            disable_corrector: config.take_or("disable_corrector", default.disable_corrector)?,
            variance: config.take_or("variance_type", default.variance)?,
            original_steps: config.take_or("original_inference_steps", default.original_steps)?,
            timestep_scaling: config.take_or("timestep_scaling", default.timestep_scaling)?,
        })
    }
}
