//! Attention of pixels and text to each other, by place.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_flux.py`, `FluxAttnProcessor`.

use tch::Tensor;

use super::rotary::Rotary;
use crate::torch::layers::{Linear, attend};
use crate::torch::mmdit::Projections;
use crate::torch::weights::{Section, WeightsError};

/// Of a block that keeps pixels and text apart.
#[derive(Debug)]
pub(super) struct JointAttention {
    pixels: Projections,
    text: Projections,
    to_out: Linear,
    to_add_out: Linear,
    heads: i64,
}

/// Of a block that takes them as one.
#[derive(Debug)]
pub(super) struct SingleAttention {
    both: Projections,
    heads: i64,
}

impl JointAttention {
    pub(super) fn load(section: &Section, heads: i64, dim: i64) -> Result<Self, WeightsError> {
        let (names, norms) = (["add_q_proj", "add_k_proj", "add_v_proj"], ["norm_added_q", "norm_added_k"]);
        Ok(Self {
            pixels: projections(section, heads, dim)?,
            text: Projections::load(section, names, Some(norms), heads, dim)?,
            to_out: Linear::load(&section.at("to_out.0"), dim, dim)?,
            to_add_out: Linear::load(&section.at("to_add_out"), dim, dim)?,
            heads,
        })
    }

    /// `[batch, patches, dim]` and `[batch, length, dim]` → the same shapes
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor, rotary: &Rotary) -> (Tensor, Tensor) {
        let (pixels, text) = (self.pixels.forward(x), self.text.forward(context));
        let side_by_side = |index: usize| Tensor::cat(&[&text[index], &pixels[index]], 1); // [batch, length + patches, dim]
        let out = attend_by_place([0, 1, 2].map(side_by_side), rotary, self.heads);
        let (length, patches) = (context.size()[1], x.size()[1]);
        let (text, pixels) = (out.narrow(1, 0, length), out.narrow(1, length, patches));
        (self.to_out.forward(&pixels), self.to_add_out.forward(&text))
    }
}

impl SingleAttention {
    pub(super) fn load(section: &Section, heads: i64, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self { both: projections(section, heads, dim)?, heads })
    }

    /// `[batch, length + patches, dim]` → the same shape
    pub(super) fn forward(&self, both: &Tensor, rotary: &Rotary) -> Tensor {
        attend_by_place(self.both.forward(both), rotary, self.heads)
    }
}

fn projections(section: &Section, heads: i64, dim: i64) -> Result<Projections, WeightsError> {
    Projections::load(section, ["to_q", "to_k", "to_v"], Some(["norm_q", "norm_k"]), heads, dim)
}

fn attend_by_place([query, key, value]: [Tensor; 3], rotary: &Rotary, heads: i64) -> Tensor {
    let turn = |x: &Tensor| rotary.turn(&x.unflatten(-1, [heads, -1])).flatten(2, 3); // [batch, length + patches, dim]
    attend(&turn(&query), &turn(&key), &value, heads, false)
}
