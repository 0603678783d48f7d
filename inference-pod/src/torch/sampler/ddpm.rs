//! DDPM: a step goes to the mean of what the picture may have been one noise level earlier, and adds noise around it.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_ddpm.py`.

use easel_api::images::SamplerKind;
use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved, with_noise};
use super::prediction::clipped;
use super::schedule::{NoiseSchedule, Prediction, Spacing, Variance};
use super::suited::{NOISE_OF_PURE_NOISE, refuse};

/// Keeps the logarithm of a variance finite.
const LEAST_VARIANCE: f32 = 1e-20;

#[derive(Clone, Debug, PartialEq)]
pub struct Ddpm {
    steps: Vec<Step>,
    prediction: Prediction,
    clip_sample: Option<f32>,
    variance: Variance,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    timestep: usize,
    /// Share of the picture before the step, and after it.
    alpha_prod_t: f32,
    alpha_prod_t_prev: f32,
}

impl Ddpm {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let alphas = &schedule.alphas_cumprod;
        let times = schedule.times(Spacing::Leading, count)?;
        let times: Vec<usize> = times.into_iter().map(|time| time.round_ties_even() as usize).collect();
        if times[0] >= alphas.len() {
            return Err(SamplerError::TooManySteps { steps: count, trained: alphas.len() });
        }
        let after = times[1..].iter().map(|&time| alphas[time]).chain([1.0]);
        let step =
            |(&timestep, alpha_prod_t_prev)| Step { timestep, alpha_prod_t: alphas[timestep], alpha_prod_t_prev };
        let steps: Vec<Step> = times.iter().zip(after).map(step).collect();
        if schedule.prediction == Prediction::Epsilon && steps[0].alpha_prod_t == 0.0 {
            return Err(refuse(SamplerKind::Ddpm, NOISE_OF_PURE_NOISE, schedule));
        }
        let (prediction, variance) = (schedule.prediction, schedule.solver.variance);
        Ok(Self { steps, prediction, clip_sample: schedule.clip_sample, variance })
    }

    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    pub fn timestep(&self, step: usize) -> f32 {
        self.steps[step].timestep as f32
    }

    /// `picture` as noisy as step `step` finds it.
    pub fn add_noise(&self, picture: &Tensor, noise: &Tensor, step: usize) -> Tensor {
        let alpha = self.steps[step].alpha_prod_t;
        picture * f64::from(alpha.sqrt()) + noise * f64::from((1.0 - alpha).sqrt())
    }

    /// The picture without noise that the output of step `step` means.
    pub fn picture(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        let alpha_prod_t = self.steps[step].alpha_prod_t;
        let picture = self.prediction.picture(output, latents, alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        clipped(picture, self.clip_sample)
    }

    /// Formula (7) of <https://arxiv.org/abs/2006.11239>.
    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        let here = self.steps[step];
        let Step { timestep, alpha_prod_t, alpha_prod_t_prev } = here;
        let (beta_prod_t, beta_prod_t_prev) = (1.0 - alpha_prod_t, 1.0 - alpha_prod_t_prev);
        let alpha_t = alpha_prod_t / alpha_prod_t_prev;
        let picture = self.picture(output, step, latents);
        let picture_share = alpha_prod_t_prev.sqrt() * (1.0 - alpha_t) / beta_prod_t;
        let latents_share = alpha_t.sqrt() * beta_prod_t_prev / beta_prod_t;
        let mean = picture * f64::from(picture_share) + latents * f64::from(latents_share);
        let spread = if timestep > 0 { self.spread(here) } else { 0.0 };
        with_noise(mean, spread, history)
    }

    /// Standard deviation of the noise that is added: `_get_variance`, and what `step` makes of it.
    fn spread(&self, step: Step) -> f32 {
        let Step { timestep: _, alpha_prod_t, alpha_prod_t_prev } = step;
        let beta_t = 1.0 - alpha_prod_t / alpha_prod_t_prev;
        let small = ((1.0 - alpha_prod_t_prev) / (1.0 - alpha_prod_t) * beta_t).max(LEAST_VARIANCE);
        match self.variance {
            Variance::FixedSmall => small.sqrt(),
            Variance::FixedSmallLog => (0.5 * small.ln()).exp(),
            Variance::FixedLarge => beta_t.sqrt(),
        }
    }
}
