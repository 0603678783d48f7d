//! A checkpoint's noise schedule, and which of its trained time steps a run visits.
//! Numbers only, in the precision of diffusers 0.42.1, `schedulers/scheduling_ddim.py` and `scheduling_euler_discrete.py`.

mod betas;
mod solver;

use easel_checkpoints::Files;
use serde::Deserialize;
use serde_json::json;

use super::SamplerError;
pub use super::prediction::Prediction;
use crate::pipeline::LoadError;
use crate::torch::config::Config;
pub use betas::{BetaSchedule, Betas};
pub use solver::{FinalSigma, SolverOptions, SolverType, Variance};

/// Classes whose checkpoints can be drawn with the samplers here: all are trained on discrete times with betas.
const CLASSES: [&str; 14] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    Leading,
    Linspace,
    Trailing,
}

/// A checkpoint's noise schedule, whatever sampler is used with it.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// Share of the picture left at each trained time step: the first is nearly 1.
    pub alphas_cumprod: Vec<f32>,
    /// The last trained step is pure noise.
    pub zero_snr: bool,
    pub beta_schedule: BetaSchedule,
    pub prediction: Prediction,
    /// Absent: each sampler's own.
    pub spacing: Option<Spacing>,
    pub steps_offset: u32,
    /// DDIM: whether the last step goes to no noise at all, or to that of the first trained step.
    pub set_alpha_to_one: bool,
    /// DDIM, DDPM, Heun, LCM: bound of the predicted picture. For models of pixels.
    pub clip_sample: Option<f32>,
    pub solver: SolverOptions,
}

impl NoiseSchedule {
    /// Reads `scheduler/` of a checkpoint as `StableDiffusionPipeline` does: it sets `steps_offset` to 1 and
    /// `clip_sample` to false whatever the file says, because files of 2022 say it wrongly
    /// (`pipelines/stable_diffusion/pipeline_stable_diffusion.py`, `__init__`).
    pub fn read_corrected(checkpoint: &Files) -> Result<Self, LoadError> {
        Ok(Self { steps_offset: 1, clip_sample: None, ..Self::read(checkpoint)? })
    }

    /// Reads `scheduler/` of a checkpoint as it is, as every other pipeline does.
    pub fn read(checkpoint: &Files) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "scheduler/scheduler_config.json")?;
        let class: String = config.need("_class_name")?;
        if !CLASSES.contains(&class.as_str()) {
            return Err(config.unsupported("_class_name", &class));
        }
        // diffusers' defaults, which only a file that somebody has shortened leaves out.
        let (schedule, start, end) = match class.as_str() {
            "LCMScheduler" => (BetaSchedule::ScaledLinear, 0.00085, 0.012),
            "HeunDiscreteScheduler" => (BetaSchedule::Linear, 0.00085, 0.012),
            _ => (BetaSchedule::Linear, 0.0001, 0.02),
        };
        let betas = Betas {
            schedule: config.take_or("beta_schedule", schedule)?,
            start: config.take_or("beta_start", start)?,
            end: config.take_or("beta_end", end)?,
            count: config.take_or("num_train_timesteps", 1000)?,
            zero_snr: config.take_or("rescale_betas_zero_snr", false)?,
        };
        let range: f32 = config.take_or("clip_sample_range", 1.0)?;
        let read = Self {
            prediction: config.take_or("prediction_type", Prediction::Epsilon)?,
            spacing: config.take("timestep_spacing")?,
            steps_offset: config.take_or("steps_offset", 0)?,
            set_alpha_to_one: config.take_or("set_alpha_to_one", true)?,
            // diffusers' DDIM writes it always; a file without it is another solver's, whose latents have no such bound.
            clip_sample: config.take_or("clip_sample", false)?.then_some(range),
            solver: SolverOptions::take(&mut config)?,
            ..Self::new(betas)
        };
        refuse_the_rest(config)?;
        Ok(read)
    }

    /// diffusers' defaults around the given betas.
    pub fn new(betas: Betas) -> Self {
        Self {
            alphas_cumprod: betas.alphas_cumprod(),
            zero_snr: betas.zero_snr,
            beta_schedule: betas.schedule,
            prediction: Prediction::Epsilon,
            spacing: None,
            steps_offset: 0,
            set_alpha_to_one: true,
            clip_sample: None,
            solver: SolverOptions::default(),
        }
    }

    pub fn trained_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The times of a run, from noise to picture, before any rounding that a sampler does.
    pub(super) fn times(&self, default: Spacing, steps: u32) -> Result<Vec<f64>, SamplerError> {
        self.spaced(default, steps, 0)
    }

    /// The same as DPM-Solver++ and `UniPC` count them: as if there were one step more, whose time is not visited.
    pub(super) fn times_above(&self, default: Spacing, steps: u32) -> Result<Vec<f64>, SamplerError> {
        self.spaced(default, steps, 1)
    }

    fn spaced(&self, default: Spacing, steps: u32, unvisited: u32) -> Result<Vec<f64>, SamplerError> {
        let trained = self.trained_steps();
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if steps as usize > trained {
            return Err(SamplerError::TooManySteps { steps, trained });
        }
        let all = steps + unvisited;
        Ok(match self.spacing.unwrap_or(default) {
            Spacing::Leading => {
                let ratio = trained as u32 / all;
                (unvisited..all).rev().map(|index| f64::from(index * ratio + self.steps_offset)).collect()
            }
            // numpy.linspace(0, trained - 1, all), reversed; one step is the first of them.
            Spacing::Linspace => {
                let ratio = (trained - 1) as f64 / (f64::from(all) - 1.0).max(1.0);
                (unvisited..all).rev().map(|index| f64::from(index) * ratio).collect()
            }
            // numpy.arange(trained, 0, -ratio), rounded, less one.
            Spacing::Trailing => {
                let trained = trained as f64;
                let delta = (trained - trained / f64::from(steps)) - trained;
                (0..steps).map(|index| (trained + f64::from(index) * delta).round_ties_even() - 1.0).collect()
            }
        })
    }
}

fn refuse_the_rest(mut config: Config) -> Result<(), LoadError> {
    // What is chosen by the request, belongs to an option that is refused when it is on, or to PNDM.
    config.ignore(&["algorithm_type", "dynamic_thresholding_ratio", "sample_max_value", "skip_prk_steps"]);
    config.finish(&[
        ("flow_shift", json!(1.0)),
        ("interpolation_type", json!("linear")),
        ("time_shift_type", json!("exponential")),
        ("timestep_type", json!("discrete")),
    ])
}
