//! `SD3Transformer2DModel` of Stable Diffusion 3 and 3.5: noisy latents, times and text in, velocity out.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_sd3.py`; fields are named as checkpoint keys.

mod attention;
mod block;
mod config;
mod patch;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::block::JointTransformerBlock;
use self::config::TransformerConfig;
use self::patch::PatchEmbed;
use super::device::Placement;
use super::layers::Linear;
use super::lora::Layers;
use super::mmdit::{AdaLayerNormContinuous, TimeTextEmbed};
use super::resnet::height_width;
use super::weights::{Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "transformer";

#[derive(Debug)]
pub struct SD3Transformer2DModel {
    pos_embed: PatchEmbed,
    time_text_embed: TimeTextEmbed,
    context_embedder: Linear,
    transformer_blocks: Vec<JointTransformerBlock>,
    norm_out: AdaLayerNormContinuous,
    proj_out: Linear,
    config: TransformerConfig,
    placement: Placement,
    adaptable: Layers,
    tensors: Tensors,
}

/// `[batch, length, text_channels]`, of which the last vector stands for several that are equal.
///
/// Text has no positions here, so equal vectors stay equal through every block, and attention to all of them is attention
/// to one whose weight counts as often: `n·exp(x)` is `exp(x + ln n)`.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub vectors: &'a Tensor,
    /// At least 1.
    pub last_counts: i64,
}

impl Text<'_> {
    /// Of the logits of attention to `patches` pixels and this text: `[1, 1, 1, patches + length]` of f32, or nothing.
    fn bias(&self, patches: i64) -> Option<Tensor> {
        let length = self.vectors.size()[1];
        let bias = || {
            let zeros = Tensor::zeros([1, 1, 1, patches + length], (Kind::Float, self.vectors.device()));
            let _ = zeros.narrow(3, patches + length - 1, 1).fill_((self.last_counts as f64).ln());
            zeros
        };
        (self.last_counts > 1).then(bias)
    }
}

impl SD3Transformer2DModel {
    /// Reads `transformer/` of a checkpoint.
    pub fn load(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        let config = TransformerConfig::read(checkpoint)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(config, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(config: TransformerConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let root = weights.root();
        let dim = config.inner_dim();
        let block =
            |layer| JointTransformerBlock::load(&root.at("transformer_blocks").at(layer), config.block(layer), dim);
        let patch = config.patch_size * config.patch_size * config.out_channels;
        let mut model = Self {
            pos_embed: PatchEmbed::load(&root.at("pos_embed"), &config)?,
            time_text_embed: TimeTextEmbed::load(
                &root.at("time_text_embed"),
                config.pooled_projection_dim,
                dim,
                false,
            )?,
            context_embedder: Linear::load(&root.at("context_embedder"), config.joint_attention_dim, dim)?,
            transformer_blocks: (0..config.num_layers).map(block).collect::<Result<_, _>>()?,
            norm_out: AdaLayerNormContinuous::load(&root.at("norm_out"), dim)?,
            proj_out: Linear::load(&root.at("proj_out"), dim, patch)?,
            config,
            placement,
            adaptable: Layers::default(),
            tensors: Tensors::default(),
        };
        weights.finish(&[])?;
        model.adaptable = weights.layers();
        model.tensors = weights.tensors();
        Ok(model)
    }

    /// Of the latents.
    pub fn in_channels(&self) -> i64 {
        self.config.in_channels
    }

    /// Of the prediction.
    pub fn out_channels(&self) -> i64 {
        self.config.out_channels
    }

    /// Of one vector of the text.
    pub fn text_channels(&self) -> i64 {
        self.config.joint_attention_dim
    }

    /// Of the vector of a whole prompt.
    pub fn pooled_channels(&self) -> i64 {
        self.config.pooled_projection_dim
    }

    /// Height and width of latents are multiples of it.
    pub fn patch_size(&self) -> i64 {
        self.config.patch_size
    }

    /// Height and width of the largest latents that there are positions for.
    pub fn max_side(&self) -> i64 {
        self.config.patch_size * self.config.pos_embed_max_size
    }

    /// Layers that adapters can change.
    pub fn adaptable(&self) -> &Layers {
        &self.adaptable
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// `sample` `[batch, in, h, w]`, `times` `[batch]` of 0..1000, text and `pooled` `[batch, pooled_channels]`, each of any
    /// dtype → `[batch, out, h, w]` of f32.
    pub fn forward(&self, sample: &Tensor, times: &Tensor, text: Text<'_>, pooled: &Tensor) -> Tensor {
        let Placement { device, kind, .. } = self.placement;
        let place = |x: &Tensor| x.to_device(device).to_kind(kind);
        let (height, width) = height_width(sample);
        let mut x = self.pos_embed.forward(&place(sample)); // [batch, patches, dim]
        let emb = self.time_text_embed.forward(&times.to_device(device), None, &place(pooled)); // [batch, dim]
        let mut context = self.context_embedder.forward(&place(text.vectors)); // [batch, length, dim]
        let bias = text.bias(x.size()[1]);
        for block in &self.transformer_blocks {
            let (next, context_next) = block.forward(&x, &context, &emb, bias.as_ref());
            x = next;
            // The last block leaves none, and nobody asks.
            context = context_next.unwrap_or(context);
        }
        let x = self.proj_out.forward(&self.norm_out.forward(&x, &emb));
        self.unpatchify(&x, height, width).to_kind(Kind::Float)
    }

    /// `[batch, patches, patch²·out]` → `[batch, out, h, w]`
    fn unpatchify(&self, x: &Tensor, height: i64, width: i64) -> Tensor {
        let (batch, patch, out) = (x.size()[0], self.config.patch_size, self.config.out_channels);
        x.view([batch, height / patch, width / patch, patch, patch, out])
            .permute([0, 5, 1, 3, 2, 4]) // nhwpqc->nchpwq
            .reshape([batch, out, height, width])
    }
}
