//! How much noise each of the trained time steps has, and which of them a run visits.
//! Numbers only, in the precision of diffusers 0.42.1, `schedulers/scheduling_ddim.py` and `scheduling_euler_discrete.py`.

use std::f64::consts::FRAC_PI_2;

use easel_checkpoints::Files;
use serde::Deserialize;
use serde_json::json;

use super::SamplerError;
use crate::pipeline::LoadError;
use crate::torch::config::Config;

/// The largest beta of the cosine schedule.
const MAX_BETA: f64 = 0.999;

/// Classes whose checkpoints can be drawn with DDIM and Euler: all are trained on discrete times with betas.
const CLASSES: [&str; 13] = [
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
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
];

/// What the model's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    VPrediction,
    /// The picture without noise.
    Sample,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    Leading,
    Linspace,
    Trailing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    Linear,
    ScaledLinear,
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// A checkpoint's noise schedule, whatever sampler is used with it.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// Share of the picture left at each trained time step: the first is nearly 1.
    pub alphas_cumprod: Vec<f32>,
    /// The last trained step is pure noise.
    pub zero_snr: bool,
    pub prediction: Prediction,
    /// Absent: each sampler's own.
    pub spacing: Option<Spacing>,
    pub steps_offset: u32,
    /// DDIM: whether the last step goes to no noise at all, or to that of the first trained step.
    pub set_alpha_to_one: bool,
    /// DDIM: bound of the predicted picture. For models of pixels.
    pub clip_sample: Option<f32>,
}

/// How the betas of a schedule come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Betas {
    pub schedule: BetaSchedule,
    pub start: f64,
    pub end: f64,
    pub count: usize,
    pub zero_snr: bool,
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
        let betas = Betas {
            schedule: config.take_or("beta_schedule", BetaSchedule::Linear)?,
            start: config.take_or("beta_start", 0.0001)?,
            end: config.take_or("beta_end", 0.02)?,
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
            prediction: Prediction::Epsilon,
            spacing: None,
            steps_offset: 0,
            set_alpha_to_one: true,
            clip_sample: None,
        }
    }

    pub fn trained_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The times of a run, from noise to picture, before any rounding that a sampler does.
    pub(super) fn times(&self, default: Spacing, steps: u32) -> Result<Vec<f64>, SamplerError> {
        let trained = self.trained_steps();
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if steps as usize > trained {
            return Err(SamplerError::TooManySteps { steps, trained });
        }
        let count = f64::from(steps);
        Ok(match self.spacing.unwrap_or(default) {
            Spacing::Leading => {
                let ratio = trained as u32 / steps;
                (0..steps).rev().map(|index| f64::from(index * ratio + self.steps_offset)).collect()
            }
            // numpy.linspace(0, trained - 1, steps), reversed; one step is the first of them.
            Spacing::Linspace => {
                let ratio = (trained - 1) as f64 / (count - 1.0).max(1.0);
                (0..steps).rev().map(|index| f64::from(index) * ratio).collect()
            }
            // numpy.arange(trained, 0, -ratio), rounded, less one.
            Spacing::Trailing => {
                let trained = trained as f64;
                let delta = (trained - trained / count) - trained;
                (0..steps).map(|index| (trained + f64::from(index) * delta).round_ties_even() - 1.0).collect()
            }
        })
    }
}

impl Betas {
    /// The running product of 1 − beta. Sums and products in f64, stored in f32, as libtorch does on a CPU.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let betas = self.betas();
        let betas = if self.zero_snr { rescale_zero_terminal_snr(&betas) } else { betas };
        cumprod(betas.iter().map(|beta| 1.0 - beta))
    }

    fn betas(&self) -> Vec<f32> {
        match self.schedule {
            BetaSchedule::Linear => linspace(self.start, self.end, self.count),
            BetaSchedule::ScaledLinear => {
                linspace(self.start.sqrt(), self.end.sqrt(), self.count).iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredcosCapV2 => betas_for_alpha_bar(self.count),
        }
    }
}

/// `betas_for_alpha_bar` with its default `cosine`. The fractions are of floats: integers would make every beta 0.
fn betas_for_alpha_bar(count: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    let fraction = |index: usize| index as f64 / count as f64;
    let beta = |index| 1.0 - alpha_bar(fraction(index + 1)) / alpha_bar(fraction(index));
    (0..count).map(|index| beta(index).min(MAX_BETA) as f32).collect()
}

/// `rescale_zero_terminal_snr`: shifts and scales the roots of `alphas_cumprod` so that the last is 0 and the first stays.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let bar_sqrt: Vec<f32> = cumprod(betas.iter().map(|beta| 1.0 - beta)).iter().map(|bar| bar.sqrt()).collect();
    let (Some(&first), Some(&last)) = (bar_sqrt.first(), bar_sqrt.last()) else {
        return Vec::new();
    };
    let bar: Vec<f32> = bar_sqrt.iter().map(|root| ((root - last) * (first / (first - last))).powi(2)).collect();
    let first_beta = 1.0 - bar[0];
    std::iter::once(first_beta).chain(bar.windows(2).map(|pair| 1.0 - pair[1] / pair[0])).collect()
}

fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0;
    let mut next = |value: f32| {
        product *= f64::from(value);
        product as f32
    };
    values.map(&mut next).collect()
}

/// torch.linspace in f32: from both ends, so that both are exact.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count.max(2) - 1) as f32;
    let value = |index: usize| {
        if index < count / 2 { start + step * index as f32 } else { end - step * (count - index - 1) as f32 }
    };
    (0..count).map(value).collect()
}

fn refuse_the_rest(mut config: Config) -> Result<(), LoadError> {
    // What a solver does with the schedule, for solvers that are chosen by the request and not here.
    config.ignore(&[
        "algorithm_type",
        "dynamic_thresholding_ratio",
        "euler_at_final",
        "lower_order_final",
        "predict_x0",
        "sample_max_value",
        "skip_prk_steps",
        "solver_order",
        "solver_p",
        "solver_type",
        "variance_type",
        "disable_corrector",
        "lambda_min_clipped",
    ]);
    config.finish(&[
        ("final_sigmas_type", json!("zero")),
        ("flow_shift", json!(1.0)),
        ("interpolation_type", json!("linear")),
        ("time_shift_type", json!("exponential")),
        ("timestep_type", json!("discrete")),
    ])
}
