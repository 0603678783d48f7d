//! The two linear layers that end a block.
//! Transcribed from diffusers 0.42.1, `models/attention.py`, `FeedForward` and `JointTransformerBlock`.

use tch::Tensor;

use super::norm::{Modulation, modulated};
use crate::torch::layers::Linear;
use crate::torch::weights::{Section, WeightsError};

/// Inner channels for each outer one.
const FEED_FORWARD: i64 = 4;

/// With `gelu-approximate`.
#[derive(Debug)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    pub fn load(section: &Section, dim: i64) -> Result<Self, WeightsError> {
        let inner = dim * FEED_FORWARD;
        Ok(Self {
            proj: Linear::load(&section.at("net.0.proj"), dim, inner)?,
            out: Linear::load(&section.at("net.2"), inner, dim)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out.forward(&self.proj.forward(x).gelu_("tanh"))
    }
}

/// With the block's norm, gate and residual.
pub fn fed_forward(x: Tensor, how: &Modulation, ff: &FeedForward) -> Tensor {
    let mut out = ff.forward(&modulated(&x, &how.scale_mlp, &how.shift_mlp));
    out *= &how.gate_mlp;
    out + x
}
