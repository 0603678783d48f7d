//! One block: pixels and text attend to each other, and each goes through a network of its own.
//! Transcribed from diffusers 0.42.1, `models/attention.py`, `JointTransformerBlock`.

use tch::Tensor;

use super::attention::Attention;
use super::config::BlockConfig;
use crate::torch::mmdit::{AdaLayerNormContinuous, AdaLayerNormZero, FeedForward, fed_forward, modulated};
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct JointTransformerBlock {
    norm1: AdaLayerNormZero,
    context: Context,
    attn: Attention,
    attn2: Option<Attention>,
    ff: FeedForward,
}

/// What a block does to the text.
#[derive(Debug)]
enum Context {
    /// `context_pre_only`: reads it.
    Reads {
        norm1_context: AdaLayerNormContinuous,
    },
    Changes {
        norm1_context: AdaLayerNormZero,
        ff_context: FeedForward,
    },
}

impl JointTransformerBlock {
    pub(super) fn load(section: &Section, config: BlockConfig, dim: i64) -> Result<Self, WeightsError> {
        let norm1_context = section.at("norm1_context");
        let context = if config.context_pre_only {
            Context::Reads { norm1_context: AdaLayerNormContinuous::load(&norm1_context, dim)? }
        } else {
            Context::Changes {
                norm1_context: AdaLayerNormZero::load(&norm1_context, dim, false)?,
                ff_context: FeedForward::load(&section.at("ff_context"), dim)?,
            }
        };
        let attn2 = || Attention::load(&section.at("attn2"), config, dim);
        Ok(Self {
            norm1: AdaLayerNormZero::load(&section.at("norm1"), dim, config.has_dual_attention)?,
            context,
            attn: Attention::load_joint(&section.at("attn"), config, dim)?,
            attn2: config.has_dual_attention.then(attn2).transpose()?,
            ff: FeedForward::load(&section.at("ff"), dim)?,
        })
    }

    /// `[batch, patches, dim]`, text `[batch, length, dim]` and `[batch, dim]` → pixels and text of the same shapes; the
    /// text where this block changes it. `bias` is of the attention.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        emb: &Tensor,
        bias: Option<&Tensor>,
    ) -> (Tensor, Option<Tensor>) {
        let how = self.norm1.forward(emb);
        let normed = modulated(x, &how.scale_msa, &how.shift_msa);
        let (attended, context) = match &self.context {
            Context::Reads { norm1_context } => {
                (self.attn.forward_joint(&normed, &norm1_context.forward(context, emb), bias).0, None)
            }
            Context::Changes { norm1_context, ff_context } => {
                let how = norm1_context.forward(emb);
                let read = modulated(context, &how.scale_msa, &how.shift_msa);
                let (attended, text) = self.attn.forward_joint(&normed, &read, bias);
                (attended, text.map(|text| fed_forward(context + &how.gate_msa * text, &how, ff_context)))
            }
        };
        let mut changed = x + &how.gate_msa * attended;
        if let (Some(attn2), Some([shift, scale, gate])) = (&self.attn2, &how.second) {
            changed += gate * attn2.forward(&modulated(x, scale, shift));
        }
        (fed_forward(changed, &how, &self.ff), context)
    }
}
