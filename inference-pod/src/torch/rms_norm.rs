//! The norm by the mean of squares, of T5 and of queries and keys.
//! Transcribed from diffusers 0.42.1, `models/normalization.py`, and transformers 5.23.0, `models/t5/modeling_t5.py`.

use tch::{Kind, Tensor};

use super::weights::{Section, WeightsError};

/// The mean is taken in f32 whatever the dtype.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub fn load(section: &Section, channels: i64, eps: f64) -> Result<Self, WeightsError> {
        Ok(Self { weight: section.tensor("weight", &[channels])?, eps })
    }

    /// `[.., channels]` → the same shape
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let variance = x.to_kind(Kind::Float).square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        let normed = x * (variance + self.eps).rsqrt();
        normed.to_kind(self.weight.kind()) * &self.weight
    }
}
