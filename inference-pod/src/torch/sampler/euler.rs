//! Euler's method on the probability flow: straight steps from sigma to sigma, without added noise.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_euler_discrete.py`.

use tch::Tensor;

use super::SamplerError;
use super::schedule::{NoiseSchedule, Prediction};
use super::sigmas::{self, Levels};

#[derive(Clone, Debug, PartialEq)]
pub struct Euler {
    levels: Levels,
    prediction: Prediction,
}

impl Euler {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let levels = Levels::new(schedule, count, schedule.solver.karras, sigmas::end(schedule))?;
        Ok(Self { levels, prediction: schedule.prediction })
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

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        let (sigma, next) = (self.levels.sigmas[step], self.levels.sigmas[step + 1]);
        let picture = self.picture(output, step, latents);
        let derivative = (latents - picture) / f64::from(sigma);
        latents + derivative * f64::from(next - sigma)
    }
}
