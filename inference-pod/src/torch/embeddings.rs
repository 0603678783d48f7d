//! Numbers as vectors: sines and cosines of a time or a size, then two linear layers.
//! Transcribed from diffusers 0.42.1, `models/embeddings.py`; knows neither `UNet` nor transformer.

use tch::{Kind, Tensor};

use super::layers::Linear;
use super::weights::{Section, WeightsError};

const MAX_PERIOD: f64 = 10_000.0;

/// `Timesteps`, which has no weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timesteps {
    pub channels: i64,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
}

impl Timesteps {
    /// `get_timestep_embedding`, in f32 whatever the model's dtype: `[batch]` → `[batch, channels]`
    pub fn forward(&self, times: &Tensor) -> Tensor {
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

/// `TimestepEmbedding`, and `PixArtAlphaTextProjection` with `SiLU`, which is the same.
#[derive(Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub fn load(section: &Section, input: i64, output: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            linear_1: Linear::load(&section.at("linear_1"), input, output)?,
            linear_2: Linear::load(&section.at("linear_2"), output, output)?,
        })
    }

    /// `[batch, input]` → `[batch, output]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.linear_2.forward(&self.linear_1.forward(x).silu())
    }
}
