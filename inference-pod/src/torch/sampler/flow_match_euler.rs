//! Euler's method for models trained by flow matching, whose output is the velocity from picture to noise.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_flow_match_euler_discrete.py`.

use tch::Tensor;

use super::SamplerError;

/// The latents are `sigma` × noise + (1 − `sigma`) × picture.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowMatchEuler {
    timesteps: Vec<f32>,
    /// One more than steps; the last is 0.
    sigmas: Vec<f32>,
}

impl FlowMatchEuler {
    /// With the scheduler file's own `shift`, as Stable Diffusion 3 does. Large pictures need more noise at every time
    /// than small ones to look as noisy, and `shift` above 1 gives it.
    pub fn new(shift: f64, steps: u32, trained: usize) -> Result<Self, SamplerError> {
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if steps as usize > trained {
            return Err(SamplerError::TooManySteps { steps, trained });
        }
        // `__init__`: the trained levels are shifted already. `set_timesteps` goes from the first to the last of them
        // and shifts again.
        let trained = trained as f32;
        let ends = [1.0, 1.0 / trained].map(|level| shifted_once(level, shift as f32));
        let [first, last] = ends.map(|end| f64::from(end) * f64::from(trained));
        let ratio = (last - first) / f64::from(steps.max(2) - 1);
        let level = |index: u32| (first + f64::from(index) * ratio) / f64::from(trained);
        Ok(Self::from_levels((0..steps).map(level), shift, trained))
    }

    /// With levels that the pipeline chooses, before `shift`, which may depend on the picture's size: FLUX's
    /// `use_dynamic_shifting` with `mu` is the shift `e^mu`.
    pub fn with_levels(levels: &[f32], shift: f64, trained: usize) -> Result<Self, SamplerError> {
        if levels.is_empty() {
            return Err(SamplerError::NoSteps);
        }
        Ok(Self::from_levels(levels.iter().map(|&level| f64::from(level)), shift, trained as f32))
    }

    fn from_levels(levels: impl Iterator<Item = f64>, shift: f64, trained: f32) -> Self {
        let shifted = |level: f64| (shift * level / (1.0 + (shift - 1.0) * level)) as f32;
        let mut sigmas: Vec<f32> = levels.map(shifted).collect();
        let timesteps = sigmas.iter().map(|sigma| sigma * trained).collect();
        sigmas.push(0.0);
        Self { timesteps, sigmas }
    }

    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    pub fn timestep(&self, step: usize) -> f32 {
        self.timesteps[step]
    }

    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// `scale_noise`: `picture` as noisy as step `step` finds it.
    pub fn add_noise(&self, picture: &Tensor, noise: &Tensor, step: usize) -> Tensor {
        let sigma = f64::from(self.sigmas[step]);
        noise * sigma + picture * (1.0 - sigma)
    }

    /// The picture without noise that the output of step `step` means.
    pub fn picture(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        latents - output * f64::from(self.sigmas[step])
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        latents + output * f64::from(self.sigmas[step + 1] - self.sigmas[step])
    }
}

fn shifted_once(level: f32, shift: f32) -> f32 {
    shift * level / (1.0 + (shift - 1.0) * level)
}
