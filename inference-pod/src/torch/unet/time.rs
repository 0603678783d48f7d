//! The embedding of a time step: sines and cosines, then two linear layers.
//! Transcribed from diffusers 0.42.1, `models/embeddings.py`.

use tch::{Kind, Tensor};

use super::config::UNetConfig;
use crate::torch::layers::Linear;
use crate::torch::weights::{Section, WeightsError};

const MAX_PERIOD: f64 = 10_000.0;

#[derive(Debug)]
pub(super) struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    channels: i64,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl TimeEmbedding {
    pub(super) fn load(section: &Section, config: &UNetConfig) -> Result<Self, WeightsError> {
        let (input, output) = (config.first_channels(), config.time_channels());
        Ok(Self {
            linear_1: Linear::load(&section.at("linear_1"), input, output)?,
            linear_2: Linear::load(&section.at("linear_2"), output, output)?,
            channels: input,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
        })
    }

    /// `[batch]` → `[batch, time_channels]` of `kind`
    pub(super) fn forward(&self, times: &Tensor, kind: Kind) -> Tensor {
        let x = self.linear_1.forward(&self.sinusoid(times).to_kind(kind));
        self.linear_2.forward(&x.silu())
    }

    /// `get_timestep_embedding`, in f32 whatever the model's dtype: `[batch]` → `[batch, channels]`
    fn sinusoid(&self, times: &Tensor) -> Tensor {
        let half = self.channels / 2;
        let exponent = Tensor::arange(half, (Kind::Float, times.device())) * -MAX_PERIOD.ln();
        let frequencies = (exponent / (half as f64 - self.freq_shift)).exp();
        let angles = times.to_kind(Kind::Float).unsqueeze(1) * frequencies.unsqueeze(0); // [batch, half]
        let (sin, cos) = (angles.sin(), angles.cos());
        let ordered = if self.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        // An odd number of channels ends in a zero.
        Tensor::cat(&ordered, 1).constant_pad_nd([0, self.channels % 2])
    }
}
