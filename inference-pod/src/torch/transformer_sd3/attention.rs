//! Attention of pixels and text to each other, or of pixels alone.
//! Transcribed from diffusers 0.42.1, `models/attention_processor.py`, `JointAttnProcessor2_0`.

use tch::Tensor;

use super::config::BlockConfig;
use crate::torch::layers::{Linear, attend, attend_biased};
use crate::torch::mmdit::Projections;
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct Attention {
    pixels: Projections,
    to_out: Linear,
    /// The text's side.
    added: Option<Added>,
    heads: i64,
}

#[derive(Debug)]
struct Added {
    text: Projections,
    /// Not in the last block, after which nobody reads the text.
    to_add_out: Option<Linear>,
}

impl Attention {
    /// `attn2` of a block: the pixels alone.
    pub(super) fn load(section: &Section, config: BlockConfig, dim: i64) -> Result<Self, WeightsError> {
        let norms = config.has_qk_norm.then_some(["norm_q", "norm_k"]);
        Ok(Self {
            pixels: Projections::load(section, ["to_q", "to_k", "to_v"], norms, config.heads, dim)?,
            to_out: Linear::load(&section.at("to_out.0"), dim, dim)?,
            added: None,
            heads: config.heads,
        })
    }

    /// `attn` of a block: pixels and text.
    pub(super) fn load_joint(section: &Section, config: BlockConfig, dim: i64) -> Result<Self, WeightsError> {
        let names = ["add_q_proj", "add_k_proj", "add_v_proj"];
        let norms = config.has_qk_norm.then_some(["norm_added_q", "norm_added_k"]);
        let to_add_out = || Linear::load(&section.at("to_add_out"), dim, dim);
        let added = Added {
            text: Projections::load(section, names, norms, config.heads, dim)?,
            to_add_out: (!config.context_pre_only).then(to_add_out).transpose()?,
        };
        Ok(Self { added: Some(added), ..Self::load(section, config, dim)? })
    }

    /// `[batch, patches, dim]` → the same shape
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let [query, key, value] = self.pixels.forward(x);
        self.to_out.forward(&attend(&query, &key, &value, self.heads, false))
    }

    /// `[batch, patches, dim]` and `[batch, length, dim]` → the same shapes, the text's where it is read again. `bias` is
    /// of all logits, `[patches + length]` the last of its axes.
    pub(super) fn forward_joint(
        &self,
        x: &Tensor,
        context: &Tensor,
        bias: Option<&Tensor>,
    ) -> (Tensor, Option<Tensor>) {
        let Some(added) = &self.added else {
            return (self.forward(x), None);
        };
        let (pixels, text) = (self.pixels.forward(x), added.text.forward(context));
        let side_by_side = |index: usize| Tensor::cat(&[&pixels[index], &text[index]], 1); // [batch, patches + length, dim]
        let out = attend_biased(&side_by_side(0), &side_by_side(1), &side_by_side(2), self.heads, bias);
        let (patches, length) = (x.size()[1], context.size()[1]);
        let text = |to_add_out: &Linear| to_add_out.forward(&out.narrow(1, patches, length));
        (self.to_out.forward(&out.narrow(1, 0, patches)), added.to_add_out.as_ref().map(text))
    }
}
