//! The two kinds of blocks: first with weights for pixels and for text, then with the same weights for both.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_flux.py`.

use tch::Tensor;

use super::attention::{JointAttention, SingleAttention};
use super::rotary::Rotary;
use crate::torch::layers::Linear;
use crate::torch::mmdit::{AdaLayerNormZero, AdaLayerNormZeroSingle, FeedForward, fed_forward, modulated};
use crate::torch::weights::{Section, WeightsError};

/// `mlp_ratio`
const MLP: i64 = 4;

#[derive(Debug)]
pub(super) struct FluxTransformerBlock {
    norm1: AdaLayerNormZero,
    norm1_context: AdaLayerNormZero,
    attn: JointAttention,
    ff: FeedForward,
    ff_context: FeedForward,
}

impl FluxTransformerBlock {
    pub(super) fn load(section: &Section, heads: i64, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            norm1: AdaLayerNormZero::load(&section.at("norm1"), dim, false)?,
            norm1_context: AdaLayerNormZero::load(&section.at("norm1_context"), dim, false)?,
            attn: JointAttention::load(&section.at("attn"), heads, dim)?,
            ff: FeedForward::load(&section.at("ff"), dim)?,
            ff_context: FeedForward::load(&section.at("ff_context"), dim)?,
        })
    }

    /// `[batch, patches, dim]`, text `[batch, length, dim]` and `[batch, dim]` → pixels and text of the same shapes
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor, emb: &Tensor, rotary: &Rotary) -> (Tensor, Tensor) {
        let (how, of_text) = (self.norm1.forward(emb), self.norm1_context.forward(emb));
        let normed = modulated(x, &how.scale_msa, &how.shift_msa);
        let normed_context = modulated(context, &of_text.scale_msa, &of_text.shift_msa);
        let (pixels, text) = self.attn.forward(&normed, &normed_context, rotary);
        let (x, context) = (x + &how.gate_msa * pixels, context + &of_text.gate_msa * text);
        (fed_forward(x, &how, &self.ff), fed_forward(context, &of_text, &self.ff_context))
    }
}

#[derive(Debug)]
pub(super) struct FluxSingleTransformerBlock {
    norm: AdaLayerNormZeroSingle,
    attn: SingleAttention,
    proj_mlp: Linear,
    /// Of what attention and feed-forward give, side by side.
    proj_out: Linear,
}

impl FluxSingleTransformerBlock {
    pub(super) fn load(section: &Section, heads: i64, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            norm: AdaLayerNormZeroSingle::load(&section.at("norm"), dim)?,
            attn: SingleAttention::load(&section.at("attn"), heads, dim)?,
            proj_mlp: Linear::load(&section.at("proj_mlp"), dim, MLP * dim)?,
            proj_out: Linear::load(&section.at("proj_out"), dim + MLP * dim, dim)?,
        })
    }

    /// `[batch, length + patches, dim]` and `[batch, dim]` → the shape of the first
    pub(super) fn forward(&self, both: &Tensor, emb: &Tensor, rotary: &Rotary) -> Tensor {
        let (normed, gate) = self.norm.forward(both, emb);
        let mlp = self.proj_mlp.forward(&normed).gelu("tanh");
        let attended = self.attn.forward(&normed, rotary);
        both + gate * self.proj_out.forward(&Tensor::cat(&[attended, mlp], 2))
    }
}
