//! Latent consistency: each model call predicts the picture at once, and noise takes it back up to the next time.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_lcm.py`.

use easel_api::images::SamplerKind;
use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved, with_noise};
use super::prediction::clipped;
use super::schedule::{NoiseSchedule, Prediction};
use super::suited::{NOISE_OF_PURE_NOISE, refuse};

/// `sigma_data`: standard deviation of the data that the boundary condition is made for.
const SIGMA_DATA: f32 = 0.5;

#[derive(Clone, Debug, PartialEq)]
pub struct Lcm {
    steps: Vec<Step>,
    prediction: Prediction,
    clip_sample: Option<f32>,
    timestep_scaling: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    timestep: usize,
    /// Share of the picture before the step.
    alpha_prod_t: f32,
    /// After it; absent at the end, where no noise is left.
    alpha_prod_t_prev: Option<f32>,
}

impl Lcm {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let alphas = &schedule.alphas_cumprod;
        let original = schedule.solver.original_steps;
        if count == 0 {
            return Err(SamplerError::NoSteps);
        }
        if count > original || original as usize > alphas.len() {
            return Err(SamplerError::TooManyForLcm { steps: count, original });
        }
        // The times that the model was distilled on, from noise to picture; `count` of them are visited.
        let stride = alphas.len() / original as usize;
        let visited = |index: u32| {
            let skipped = (f64::from(index) * (f64::from(original) / f64::from(count))).floor() as usize;
            (original as usize - skipped) * stride - 1
        };
        let times: Vec<usize> = (0..count).map(visited).collect();
        let after = times[1..].iter().map(|&time| Some(alphas[time])).chain([None]);
        let step =
            |(&timestep, alpha_prod_t_prev)| Step { timestep, alpha_prod_t: alphas[timestep], alpha_prod_t_prev };
        let steps: Vec<Step> = times.iter().zip(after).map(step).collect();
        if schedule.prediction == Prediction::Epsilon && steps[0].alpha_prod_t == 0.0 {
            return Err(refuse(SamplerKind::Lcm, NOISE_OF_PURE_NOISE, schedule));
        }
        let timestep_scaling = schedule.solver.timestep_scaling;
        Ok(Self { steps, prediction: schedule.prediction, clip_sample: schedule.clip_sample, timestep_scaling })
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

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        let Step { timestep, alpha_prod_t: _, alpha_prod_t_prev } = self.steps[step];
        let picture = self.picture(output, step, latents);
        // `get_scalings_for_boundary_condition_discrete`: at time 0 the picture is what the latents are.
        let scaled = timestep as f32 * self.timestep_scaling;
        let spread = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / spread, scaled / spread.sqrt());
        let denoised = picture * f64::from(out) + latents * f64::from(skip);
        match alpha_prod_t_prev {
            Some(alpha) => with_noise(denoised * f64::from(alpha.sqrt()), (1.0 - alpha).sqrt(), history),
            None => with_noise(denoised, 0.0, history),
        }
    }
}
