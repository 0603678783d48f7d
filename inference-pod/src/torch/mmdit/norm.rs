//! Norms whose scale and shift come from time and prompt.
//! Transcribed from diffusers 0.42.1, `models/normalization.py`.

use tch::Tensor;

use crate::torch::layers::Linear;
use crate::torch::weights::{Section, WeightsError};

const EPS: f64 = 1e-6;

/// Of the last axis, without weights, then `scale` and `shift` of `[batch, 1, dim]`.
pub fn modulated(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Tensor {
    let dim = x.size()[x.dim() - 1];
    let mut normed = x.layer_norm([dim], None::<&Tensor>, None::<&Tensor>, EPS, true);
    normed *= scale + 1.0;
    normed += shift;
    normed
}

/// `AdaLayerNormZero` and, with three chunks more, `SD35AdaLayerNormZeroX`.
#[derive(Debug)]
pub struct AdaLayerNormZero {
    linear: Linear,
    chunks: i64,
}

/// Each `[batch, 1, dim]`.
#[derive(Debug)]
pub struct Modulation {
    pub shift_msa: Tensor,
    pub scale_msa: Tensor,
    pub gate_msa: Tensor,
    pub shift_mlp: Tensor,
    pub scale_mlp: Tensor,
    pub gate_mlp: Tensor,
    /// Shift, scale and gate of a second attention.
    pub second: Option<[Tensor; 3]>,
}

impl AdaLayerNormZero {
    pub fn load(section: &Section, dim: i64, has_second: bool) -> Result<Self, WeightsError> {
        let chunks = if has_second { 9 } else { 6 };
        Ok(Self { linear: Linear::load(&section.at("linear"), dim, chunks * dim)?, chunks })
    }

    /// `[batch, dim]`
    pub fn forward(&self, emb: &Tensor) -> Modulation {
        let chunks = self.linear.forward(&emb.silu()).unsqueeze(1).chunk(self.chunks, -1); // chunks × [batch, 1, dim]
        let chunk = |index: usize| chunks[index].shallow_clone();
        Modulation {
            shift_msa: chunk(0),
            scale_msa: chunk(1),
            gate_msa: chunk(2),
            shift_mlp: chunk(3),
            scale_mlp: chunk(4),
            gate_mlp: chunk(5),
            second: (chunks.len() > 6).then(|| [chunk(6), chunk(7), chunk(8)]),
        }
    }
}

/// Of a block in which attention and feed-forward stand side by side.
#[derive(Debug)]
pub struct AdaLayerNormZeroSingle {
    linear: Linear,
}

impl AdaLayerNormZeroSingle {
    pub fn load(section: &Section, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self { linear: Linear::load(&section.at("linear"), dim, 3 * dim)? })
    }

    /// `[batch, length, dim]` and `[batch, dim]` → the normed, and a gate of `[batch, 1, dim]`
    pub fn forward(&self, x: &Tensor, emb: &Tensor) -> (Tensor, Tensor) {
        let chunks = self.linear.forward(&emb.silu()).unsqueeze(1).chunk(3, -1); // shift, scale and gate
        (modulated(x, &chunks[1], &chunks[0]), chunks[2].shallow_clone())
    }
}

#[derive(Debug)]
pub struct AdaLayerNormContinuous {
    linear: Linear,
}

impl AdaLayerNormContinuous {
    pub fn load(section: &Section, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self { linear: Linear::load(&section.at("linear"), dim, 2 * dim)? })
    }

    /// `[batch, length, dim]` and `[batch, dim]` → `[batch, length, dim]`
    pub fn forward(&self, x: &Tensor, emb: &Tensor) -> Tensor {
        let halves = self.linear.forward(&emb.silu()).unsqueeze(1).chunk(2, -1); // 2 × [batch, 1, dim]
        modulated(x, &halves[0], &halves[1])
    }
}
