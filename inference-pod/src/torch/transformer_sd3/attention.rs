//! Attention of pixels and text to each other, or of pixels alone.
//! Transcribed from diffusers 0.42.1, `models/attention_processor.py`, `JointAttnProcessor2_0`.

use tch::Tensor;

use super::config::BlockConfig;
use super::norm::RmsNorm;
use crate::torch::layers::{Linear, attend};
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

/// Queries, keys and values of one of the two.
#[derive(Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: i64,
}

impl Attention {
    /// `attn2` of a block: the pixels alone.
    pub(super) fn load(section: &Section, config: BlockConfig, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            pixels: Projections::load(section, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], config, dim)?,
            to_out: Linear::load(&section.at("to_out.0"), dim, dim)?,
            added: None,
            heads: config.heads,
        })
    }

    /// `attn` of a block: pixels and text.
    pub(super) fn load_joint(section: &Section, config: BlockConfig, dim: i64) -> Result<Self, WeightsError> {
        let names = ["add_q_proj", "add_k_proj", "add_v_proj"];
        let to_add_out = || Linear::load(&section.at("to_add_out"), dim, dim);
        let added = Added {
            text: Projections::load(section, names, ["norm_added_q", "norm_added_k"], config, dim)?,
            to_add_out: (!config.context_pre_only).then(to_add_out).transpose()?,
        };
        Ok(Self { added: Some(added), ..Self::load(section, config, dim)? })
    }

    /// `[batch, patches, dim]` → the same shape
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let [query, key, value] = self.pixels.forward(x);
        self.to_out.forward(&attend(&query, &key, &value, self.heads, false))
    }

    /// `[batch, patches, dim]` and `[batch, length, dim]` → the same shapes, the text's where it is read again.
    pub(super) fn forward_joint(&self, x: &Tensor, context: &Tensor) -> (Tensor, Option<Tensor>) {
        let Some(added) = &self.added else {
            return (self.forward(x), None);
        };
        let (pixels, text) = (self.pixels.forward(x), added.text.forward(context));
        let side_by_side = |index: usize| Tensor::cat(&[&pixels[index], &text[index]], 1); // [batch, patches + length, dim]
        let out = attend(&side_by_side(0), &side_by_side(1), &side_by_side(2), self.heads, false);
        let (patches, length) = (x.size()[1], context.size()[1]);
        let text = |to_add_out: &Linear| to_add_out.forward(&out.narrow(1, patches, length));
        (self.to_out.forward(&out.narrow(1, 0, patches)), added.to_add_out.as_ref().map(text))
    }
}

impl Projections {
    fn load(
        section: &Section,
        [query, key, value]: [&str; 3],
        [norm_query, norm_key]: [&str; 2],
        config: BlockConfig,
        dim: i64,
    ) -> Result<Self, WeightsError> {
        let linear = |name: &str| Linear::load(&section.at(name), dim, dim);
        let norm = |name: &str| RmsNorm::load(&section.at(name), dim / config.heads);
        let norms = || Ok((norm(norm_query)?, norm(norm_key)?));
        Ok(Self {
            query: linear(query)?,
            key: linear(key)?,
            value: linear(value)?,
            norms: config.has_qk_norm.then(norms).transpose()?,
            heads: config.heads,
        })
    }

    /// `[batch, length, dim]` → query, key and value of the same shape
    fn forward(&self, x: &Tensor) -> [Tensor; 3] {
        let (mut query, mut key) = (self.query.forward(x), self.key.forward(x));
        if let Some((norm_query, norm_key)) = &self.norms {
            let by_head = |norm: &RmsNorm, x: &Tensor| {
                let heads = x.unflatten(-1, [self.heads, -1]); // [batch, length, heads, dim / heads]
                norm.forward(&heads).flatten(2, 3) // [batch, length, dim]
            };
            (query, key) = (by_head(norm_query, &query), by_head(norm_key, &key));
        }
        [query, key, self.value.forward(x)]
    }
}
