//! Euler's method that goes further down than the next noise level and adds noise to come back up to it.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_euler_ancestral_discrete.py`.

use easel_api::images::SamplerKind;
use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved, with_noise};
use super::schedule::{NoiseSchedule, Prediction};
use super::sigmas::Levels;
use super::suited::refuse;

#[derive(Clone, Debug, PartialEq)]
pub struct EulerAncestral {
    levels: Levels,
    prediction: Prediction,
}

impl EulerAncestral {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        if schedule.prediction == Prediction::Sample {
            // diffusers does not implement it, so there would be nothing to prove it by.
            return Err(refuse(SamplerKind::EulerAncestral, "a model whose prediction_type is sample", schedule));
        }
        Ok(Self { levels: Levels::new(schedule, count, false, 0.0)?, prediction: schedule.prediction })
    }

    pub fn steps(&self) -> usize {
        self.levels.timesteps.len()
    }

    pub fn timestep(&self, step: usize) -> f32 {
        self.levels.timesteps[step]
    }

    pub fn sigmas(&self) -> &[f32] {
        &self.levels.sigmas
    }

    pub fn init_noise_sigma(&self) -> f32 {
        self.levels.init_noise_sigma
    }

    pub fn scale_model_input(&self, latents: &Tensor, step: usize) -> Tensor {
        self.levels.scale_model_input(latents, step)
    }

    /// `picture` as noisy as step `step` finds it.
    pub fn add_noise(&self, picture: &Tensor, noise: &Tensor, step: usize) -> Tensor {
        picture + noise * f64::from(self.levels.sigmas[step])
    }

    /// The picture without noise that the output of step `step` means.
    pub fn picture(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        self.prediction.picture_beside(output, latents, self.levels.sigmas[step])
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        let (from, to) = (self.levels.sigmas[step], self.levels.sigmas[step + 1]);
        let picture = self.picture(output, step, latents);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let down = (to * to - up * up).sqrt();
        let derivative = (latents - picture) / f64::from(from);
        with_noise(latents + derivative * f64::from(down - from), up, history)
    }
}
