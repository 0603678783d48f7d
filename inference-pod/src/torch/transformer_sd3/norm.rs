//! Norms whose scale and shift come from time and prompt, and the norm of queries and keys.
//! Transcribed from diffusers 0.42.1, `models/normalization.py`.

use tch::{Kind, Tensor};

use crate::torch::layers::Linear;
use crate::torch::weights::{Section, WeightsError};

const EPS: f64 = 1e-6;

/// Of the last axis, without weights, then `scale` and `shift` of `[batch, 1, dim]`.
pub(super) fn modulated(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Tensor {
    let dim = x.size()[x.dim() - 1];
    let normed = x.layer_norm([dim], None::<&Tensor>, None::<&Tensor>, EPS, true);
    normed * (scale + 1.0) + shift
}

/// `AdaLayerNormZero` and, with three chunks more, `SD35AdaLayerNormZeroX`.
#[derive(Debug)]
pub(super) struct AdaLayerNormZero {
    linear: Linear,
    chunks: i64,
}

/// Each `[batch, 1, dim]`.
#[derive(Debug)]
pub(super) struct Modulation {
    pub(super) shift_msa: Tensor,
    pub(super) scale_msa: Tensor,
    pub(super) gate_msa: Tensor,
    pub(super) shift_mlp: Tensor,
    pub(super) scale_mlp: Tensor,
    pub(super) gate_mlp: Tensor,
    /// Shift, scale and gate of a second attention.
    pub(super) second: Option<[Tensor; 3]>,
}

impl AdaLayerNormZero {
    pub(super) fn load(section: &Section, dim: i64, has_second: bool) -> Result<Self, WeightsError> {
        let chunks = if has_second { 9 } else { 6 };
        Ok(Self { linear: Linear::load(&section.at("linear"), dim, chunks * dim)?, chunks })
    }

    /// `[batch, dim]`
    pub(super) fn forward(&self, emb: &Tensor) -> Modulation {
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

#[derive(Debug)]
pub(super) struct AdaLayerNormContinuous {
    linear: Linear,
}

impl AdaLayerNormContinuous {
    pub(super) fn load(section: &Section, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self { linear: Linear::load(&section.at("linear"), dim, 2 * dim)? })
    }

    /// `[batch, length, dim]` and `[batch, dim]` → `[batch, length, dim]`
    pub(super) fn forward(&self, x: &Tensor, emb: &Tensor) -> Tensor {
        let halves = self.linear.forward(&emb.silu()).unsqueeze(1).chunk(2, -1); // 2 × [batch, 1, dim]
        modulated(x, &halves[0], &halves[1])
    }
}

/// `RMSNorm`: the mean of squares in f32 whatever the dtype.
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor,
}

impl RmsNorm {
    pub(super) fn load(section: &Section, channels: i64) -> Result<Self, WeightsError> {
        Ok(Self { weight: section.tensor("weight", &[channels])? })
    }

    /// `[.., channels]` → the same shape
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let variance = x.to_kind(Kind::Float).square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        let normed = x * (variance + EPS).rsqrt();
        normed.to_kind(self.weight.kind()) * &self.weight
    }
}
