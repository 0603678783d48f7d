//! Attention over pixels and text: `Transformer2DModel` and its blocks.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_2d.py`, `attention.py` and `activations.py`.

use tch::Tensor;

use super::config::{AttentionConfig, UNetConfig};
use crate::torch::layers::{Conv2d, GroupNorm, LayerNorm, Linear, attend};
use crate::torch::resnet::{height_width, pixels_of};
use crate::torch::weights::{Section, WeightsError};

/// diffusers passes neither of them on from the `UNet`'s config.
const GROUP_NORM_EPS: f64 = 1e-6;
const LAYER_NORM_EPS: f64 = 1e-5;
/// Inner channels of the feed-forward for each outer one.
const FEED_FORWARD: i64 = 4;

#[derive(Debug)]
pub(super) struct Transformer2DModel {
    norm: GroupNorm,
    proj: Projections,
    transformer_blocks: Vec<BasicTransformerBlock>,
}

/// `proj_in` and `proj_out`: a 1×1 convolution in Stable Diffusion 1, a linear layer in 2. The same numbers in another
/// order of axes.
#[derive(Debug)]
enum Projections {
    Conv(Conv2d, Conv2d),
    Linear(Linear, Linear),
}

impl Transformer2DModel {
    pub(super) fn load(
        section: &Section,
        config: &UNetConfig,
        channels: i64,
        attention: AttentionConfig,
    ) -> Result<Self, WeightsError> {
        let (proj_in, proj_out) = (section.at("proj_in"), section.at("proj_out"));
        let proj = if config.use_linear_projection {
            Projections::Linear(
                Linear::load(&proj_in, channels, channels)?,
                Linear::load(&proj_out, channels, channels)?,
            )
        } else {
            Projections::Conv(
                Conv2d::load(&proj_in, channels, channels, 1)?,
                Conv2d::load(&proj_out, channels, channels, 1)?,
            )
        };
        let blocks = section.at("transformer_blocks");
        let block = |layer| BasicTransformerBlock::load(&blocks.at(layer), channels, attention);
        Ok(Self {
            norm: GroupNorm::load(&section.at("norm"), channels, config.groups, GROUP_NORM_EPS)?,
            proj,
            transformer_blocks: (0..attention.layers).map(block).collect::<Result<_, _>>()?,
        })
    }

    /// `[batch, channels, h, w]` and `[batch, length, text_channels]` → `[batch, channels, h, w]`
    pub(super) fn forward(&self, x: &Tensor, text: &Tensor) -> Tensor {
        let (h, w) = height_width(x);
        let to_tokens = |x: Tensor| x.flatten(2, 3).transpose(1, 2); // [batch, h·w, channels]
        let to_pixels = |x: Tensor| pixels_of(&x, (h, w)); // [batch, channels, h, w]
        let through = |x: Tensor| self.transformer_blocks.iter().fold(x, |x, block| block.forward(&x, text));
        let normed = self.norm.forward(x);
        let mut out = match &self.proj {
            Projections::Conv(proj_in, proj_out) => {
                proj_out.forward(&to_pixels(through(to_tokens(proj_in.forward(&normed)))))
            }
            Projections::Linear(proj_in, proj_out) => {
                to_pixels(proj_out.forward(&through(proj_in.forward(&to_tokens(normed)))))
            }
        };
        out += x;
        out
    }
}

#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn load(section: &Section, channels: i64, attention: AttentionConfig) -> Result<Self, WeightsError> {
        let AttentionConfig { heads, layers: _, text_channels } = attention;
        let norm = |name: &str| LayerNorm::load(&section.at(name), channels, LAYER_NORM_EPS);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&section.at("attn1"), channels, channels, heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::load(&section.at("attn2"), channels, text_channels, heads)?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&section.at("ff"), channels)?,
        })
    }

    /// `[batch, h·w, channels]` → the same shape
    fn forward(&self, x: &Tensor, text: &Tensor) -> Tensor {
        let normed = self.norm1.forward(x);
        let mut x = self.attn1.forward(&normed, &normed) + x;
        x += self.attn2.forward(&self.norm2.forward(&x), text);
        x += self.ff.forward(&self.norm3.forward(&x));
        x
    }
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

impl Attention {
    fn load(section: &Section, channels: i64, context: i64, heads: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            to_q: Linear::load_without_bias(&section.at("to_q"), channels, channels)?,
            to_k: Linear::load_without_bias(&section.at("to_k"), context, channels)?,
            to_v: Linear::load_without_bias(&section.at("to_v"), context, channels)?,
            to_out: Linear::load(&section.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    /// `[batch, h·w, channels]` reads from `[batch, length, context]`
    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let (query, key, value) = (self.to_q.forward(x), self.to_k.forward(context), self.to_v.forward(context));
        self.to_out.forward(&attend(&query, &key, &value, self.heads, false))
    }
}

/// GEGLU, then back.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn load(section: &Section, channels: i64) -> Result<Self, WeightsError> {
        let inner = channels * FEED_FORWARD;
        Ok(Self {
            // Value and gate side by side.
            proj: Linear::load(&section.at("net.0.proj"), channels, inner * 2)?,
            out: Linear::load(&section.at("net.2"), inner, channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut halves = self.proj.forward(x).chunk(2, -1); // 2 × [batch, h·w, inner]
        let gate = halves[1].gelu_("none");
        self.out.forward(&(&halves[0] * gate))
    }
}
