//! Euler's method on the probability flow: straight steps from sigma to sigma, without added noise.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_euler_discrete.py`.

use tch::Tensor;

use super::SamplerError;
use super::schedule::{NoiseSchedule, Prediction, Spacing};

/// The smallest f16 above zero: stands for "no picture left", whose sigma would be infinite.
const ALMOST_ZERO_ALPHA: f32 = 1.0 / 16_777_216.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Euler {
    timesteps: Vec<f32>,
    /// One more than steps; the last is 0.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction: Prediction,
}

impl Euler {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let spacing = schedule.spacing.unwrap_or(Spacing::Linspace);
        let times: Vec<f32> = schedule.times(spacing, count)?.iter().map(|&time| time as f32).collect();
        let trained = trained_sigmas(schedule);
        let mut sigmas: Vec<f32> = times.iter().map(|&time| interpolate(&trained, time)).collect();
        sigmas.push(0.0);
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match spacing {
            Spacing::Linspace | Spacing::Trailing => max,
            Spacing::Leading => (max * max + 1.0).sqrt(),
        };
        Ok(Self { timesteps: times, sigmas, init_noise_sigma, prediction: schedule.prediction })
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

    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    /// The model was trained on latents of variance 1; here the noise is not scaled down but added.
    pub fn scale_model_input(&self, latents: &Tensor, step: usize) -> Tensor {
        let sigma = self.sigmas[step];
        latents / f64::from((sigma * sigma + 1.0).sqrt())
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        let (sigma, next) = (self.sigmas[step], self.sigmas[step + 1]);
        let variance = sigma * sigma + 1.0;
        let picture = match self.prediction {
            Prediction::Epsilon => latents - output * f64::from(sigma),
            Prediction::Sample => output.shallow_clone(),
            Prediction::VPrediction => output * f64::from(-sigma / variance.sqrt()) + latents / f64::from(variance),
        };
        let derivative = (latents - picture) / f64::from(sigma);
        latents + derivative * f64::from(next - sigma)
    }
}

/// Noise over picture at each trained time step.
fn trained_sigmas(schedule: &NoiseSchedule) -> Vec<f32> {
    let mut alphas = schedule.alphas_cumprod.clone();
    if let Some(last) = alphas.last_mut().filter(|_| schedule.zero_snr) {
        *last = ALMOST_ZERO_ALPHA;
    }
    alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// numpy.interp over the indices of `values`: in f64, and beyond the ends the value at the end.
fn interpolate(values: &[f32], at: f32) -> f32 {
    let last = values.len() - 1;
    let index = (at.max(0.0) as usize).min(last);
    let (low, high) = (f64::from(values[index]), f64::from(values[(index + 1).min(last)]));
    (low + (high - low) * (f64::from(at) - index as f64).clamp(0.0, 1.0)) as f32
}
