//! DDIM without added noise (eta 0): each step goes from one noise level to the next along the predicted picture.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_ddim.py`.

use easel_api::images::SamplerKind;
use tch::Tensor;

use super::SamplerError;
use super::prediction::clipped;
use super::schedule::{NoiseSchedule, Prediction, Spacing};
use super::suited::{NOISE_OF_PURE_NOISE, refuse};

#[derive(Clone, Debug, PartialEq)]
pub struct Ddim {
    steps: Vec<Step>,
    prediction: Prediction,
    clip_sample: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    timestep: usize,
    /// Share of the picture before the step, and after it.
    alpha_prod_t: f32,
    alpha_prod_t_prev: f32,
}

impl Ddim {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let alphas = &schedule.alphas_cumprod;
        let final_alpha = if schedule.set_alpha_to_one { 1.0 } else { alphas[0] };
        let times = schedule.times(Spacing::Leading, count)?;
        let stride = schedule.trained_steps() / count as usize;
        let step = |time: f64| {
            // Times are whole numbers from 0 on; `times` has checked the count.
            let timestep = time.round_ties_even() as usize;
            let alpha_prod_t = *alphas.get(timestep)?;
            let alpha_prod_t_prev = timestep.checked_sub(stride).map_or(final_alpha, |previous| alphas[previous]);
            Some(Step { timestep, alpha_prod_t, alpha_prod_t_prev })
        };
        let too_many = SamplerError::TooManySteps { steps: count, trained: schedule.trained_steps() };
        let steps: Vec<Step> = times.into_iter().map(step).collect::<Option<_>>().ok_or(too_many)?;
        if schedule.prediction == Prediction::Epsilon && steps.iter().any(|step| step.alpha_prod_t == 0.0) {
            return Err(refuse(SamplerKind::Ddim, NOISE_OF_PURE_NOISE, schedule));
        }
        Ok(Self { steps, prediction: schedule.prediction, clip_sample: schedule.clip_sample })
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

    /// Formula (12) of <https://arxiv.org/abs/2010.02502>. The predicted noise is not derived again from a clipped
    /// picture (`use_clipped_model_output` is false).
    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        let Step { timestep: _, alpha_prod_t, alpha_prod_t_prev } = self.steps[step];
        let (root_alpha, root_beta) = (alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        let (root_alpha, root_beta) = (f64::from(root_alpha), f64::from(root_beta));
        let noise = match self.prediction {
            Prediction::Epsilon => output.shallow_clone(),
            Prediction::Sample => (latents - output * root_alpha) / root_beta,
            Prediction::VPrediction => output * root_alpha + latents * root_beta,
        };
        let picture = self.picture(output, step, latents);
        let direction = noise * f64::from((1.0 - alpha_prod_t_prev).sqrt());
        picture * f64::from(alpha_prod_t_prev.sqrt()) + direction
    }
}
