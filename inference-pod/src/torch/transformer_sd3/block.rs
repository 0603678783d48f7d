//! One block: pixels and text attend to each other, and each goes through a network of its own.
//! Transcribed from diffusers 0.42.1, `models/attention.py`, `JointTransformerBlock` and `FeedForward`.

use tch::Tensor;

use super::attention::Attention;
use super::config::BlockConfig;
use super::norm::{AdaLayerNormContinuous, AdaLayerNormZero, Modulation, modulated};
use crate::torch::layers::Linear;
use crate::torch::weights::{Section, WeightsError};

/// Inner channels of the feed-forward for each outer one.
const FEED_FORWARD: i64 = 4;

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
    /// text where this block changes it.
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor, emb: &Tensor) -> (Tensor, Option<Tensor>) {
        let how = self.norm1.forward(emb);
        let normed = modulated(x, &how.scale_msa, &how.shift_msa);
        let (attended, context) = match &self.context {
            Context::Reads { norm1_context } => {
                (self.attn.forward_joint(&normed, &norm1_context.forward(context, emb)).0, None)
            }
            Context::Changes { norm1_context, ff_context } => {
                let how = norm1_context.forward(emb);
                let read = modulated(context, &how.scale_msa, &how.shift_msa);
                let (attended, text) = self.attn.forward_joint(&normed, &read);
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

fn fed_forward(x: Tensor, how: &Modulation, ff: &FeedForward) -> Tensor {
    let out = &how.gate_mlp * ff.forward(&modulated(&x, &how.scale_mlp, &how.shift_mlp));
    x + out
}

/// With `gelu-approximate`.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn load(section: &Section, dim: i64) -> Result<Self, WeightsError> {
        let inner = dim * FEED_FORWARD;
        Ok(Self {
            proj: Linear::load(&section.at("net.0.proj"), dim, inner)?,
            out: Linear::load(&section.at("net.2"), inner, dim)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out.forward(&self.proj.forward(x).gelu("tanh"))
    }
}
