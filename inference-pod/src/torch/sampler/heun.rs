//! Heun's method: a step of Euler's to the next noise level, a second model call there, and the step again with the mean
//! of both slopes. Transcribed from diffusers 0.42.1, `schedulers/scheduling_heun_discrete.py`.

use easel_api::images::SamplerKind;
use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved};
use super::prediction::clipped;
use super::schedule::{NoiseSchedule, Prediction};
use super::sigmas::Levels;
use super::suited::refuse;

/// A step here is one model call. Those of even number begin a step of the method, those of odd number end it; the last
/// is of Euler's alone, for there is no slope where there is no noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Heun {
    /// Of every call: all but the first are doubled.
    levels: Levels,
    prediction: Prediction,
    clip_sample: Option<f32>,
}

impl Heun {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        if schedule.zero_snr {
            // diffusers draws as if the option were not there, with a schedule that the model was not trained on.
            let model = "a model whose first step is pure noise (rescale_betas_zero_snr)";
            return Err(refuse(SamplerKind::Heun, model, schedule));
        }
        let Levels { timesteps, sigmas, init_noise_sigma } = Levels::new(schedule, count, schedule.solver.karras, 0.0)?;
        let (first, rest) = (timesteps[0], &timesteps[1..]);
        let timesteps = [first].into_iter().chain(rest.iter().flat_map(|&time| [time, time])).collect();
        let (first, rest) = (sigmas[0], &sigmas[1..sigmas.len() - 1]);
        let sigmas = [first].into_iter().chain(rest.iter().flat_map(|&sigma| [sigma, sigma])).chain([0.0]).collect();
        let levels = Levels { timesteps, sigmas, init_noise_sigma };
        Ok(Self { levels, prediction: schedule.prediction, clip_sample: schedule.clip_sample })
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
        let picture = self.prediction.picture_beside(output, latents, self.levels.sigmas[step]);
        clipped(picture, self.clip_sample)
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        let sigmas = &self.levels.sigmas;
        // Both calls of a step are made at their own noise level.
        let slope_here = (latents - self.picture(output, step, latents)) / f64::from(sigmas[step]);
        let noise = history.noise;
        if let (Some(first_slope), Some(before)) = (history.outputs.first(), &history.before) {
            let (sigma, next) = (sigmas[step - 1], sigmas[step]);
            let slope = (first_slope + slope_here) / 2.0;
            return Moved { latents: before + slope * f64::from(next - sigma), history: History::new(noise) };
        }
        let (sigma, next) = (sigmas[step], sigmas[step + 1]);
        let moved = latents + &slope_here * f64::from(next - sigma);
        let before = Some(latents.shallow_clone());
        Moved { latents: moved, history: History { outputs: vec![slope_here], before, noise } }
    }
}
