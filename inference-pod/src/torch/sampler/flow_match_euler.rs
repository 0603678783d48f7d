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
    /// `shift` above 1 spends more of the steps on noise, which large pictures need.
    pub fn new(shift: f64, steps: u32, trained: usize) -> Result<Self, SamplerError> {
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if steps as usize > trained {
            return Err(SamplerError::TooManySteps { steps, trained });
        }
        let shifted = |sigma: f64| shift * sigma / (1.0 + (shift - 1.0) * sigma);
        // `__init__` shifts the trained levels, and `set_timesteps` shifts again what lies evenly between their ends.
        let trained = trained as f64;
        let (first, last) = (shifted(1.0), f64::from(shifted(1.0 / trained) as f32));
        let stride = (last - first) / f64::from(steps.max(2) - 1);
        let mut sigmas: Vec<f32> = (0..steps).map(|index| shifted(first + f64::from(index) * stride) as f32).collect();
        let timesteps = sigmas.iter().map(|sigma| sigma * trained as f32).collect();
        sigmas.push(0.0);
        Ok(Self { timesteps, sigmas })
    }

    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    pub fn timestep(&self, step: usize) -> f32 {
        self.timesteps[step]
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        latents + output * f64::from(self.sigmas[step + 1] - self.sigmas[step])
    }
}
