//! `FluxTransformer2DModel` of FLUX.1: noisy latents, times, guidance and text in, velocity out.
//! Transcribed from diffusers 0.42.1, `models/transformers/transformer_flux.py`; fields are named as checkpoint keys.

mod attention;
mod block;
mod config;
mod pack;
mod rotary;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::block::{FluxSingleTransformerBlock, FluxTransformerBlock};
use self::config::FluxConfig;
use self::pack::{PATCH, pack, unpack};
use self::rotary::Rotary;
use super::device::Placement;
use super::layers::Linear;
use super::lora::Layers;
use super::mmdit::{AdaLayerNormContinuous, TimeTextEmbed};
use super::resnet::height_width;
use super::weights::{Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "transformer";
/// What guidance and times are multiplied by before they become sinusoids.
const PER_UNIT: f64 = 1000.0;

#[derive(Debug)]
pub struct FluxTransformer2DModel {
    time_text_embed: TimeTextEmbed,
    context_embedder: Linear,
    x_embedder: Linear,
    transformer_blocks: Vec<FluxTransformerBlock>,
    single_transformer_blocks: Vec<FluxSingleTransformerBlock>,
    norm_out: AdaLayerNormContinuous,
    proj_out: Linear,
    config: FluxConfig,
    placement: Placement,
    adaptable: Layers,
    tensors: Tensors,
}

/// What a prediction reads beside latents and times; each of any dtype.
#[derive(Debug)]
pub struct FluxText<'a> {
    /// `[batch, length, text_channels]`
    pub text: &'a Tensor,
    /// `[batch, pooled_channels]`
    pub pooled: &'a Tensor,
    /// `[batch]`, of a model that `embeds_guidance`
    pub guidance: Option<&'a Tensor>,
}

impl FluxTransformer2DModel {
    /// Reads `transformer/` of a checkpoint.
    pub fn load(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        let config = FluxConfig::read(checkpoint)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(config, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(config: FluxConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let (root, dim, heads) = (weights.root(), config.inner_dim(), config.heads);
        let (double, single) = (root.at("transformer_blocks"), root.at("single_transformer_blocks"));
        let (pooled, guides) = (config.pooled_projection_dim, config.guidance_embeds);
        let mut model = Self {
            time_text_embed: TimeTextEmbed::load(&root.at("time_text_embed"), pooled, dim, guides)?,
            context_embedder: Linear::load(&root.at("context_embedder"), config.joint_attention_dim, dim)?,
            x_embedder: Linear::load(&root.at("x_embedder"), config.in_channels, dim)?,
            transformer_blocks: (0..config.num_layers)
                .map(|layer| FluxTransformerBlock::load(&double.at(layer), heads, dim))
                .collect::<Result<_, _>>()?,
            single_transformer_blocks: (0..config.num_single_layers)
                .map(|layer| FluxSingleTransformerBlock::load(&single.at(layer), heads, dim))
                .collect::<Result<_, _>>()?,
            norm_out: AdaLayerNormContinuous::load(&root.at("norm_out"), dim)?,
            proj_out: Linear::load(&root.at("proj_out"), dim, config.in_channels)?,
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

    /// Of the latents, which are packed in squares.
    pub fn latent_channels(&self) -> i64 {
        self.config.in_channels / PATCH.pow(2)
    }

    /// Height and width of latents are multiples of it.
    pub fn patch_size(&self) -> i64 {
        PATCH
    }

    /// Of one vector of the text.
    pub fn text_channels(&self) -> i64 {
        self.config.joint_attention_dim
    }

    /// Of the vector of a whole prompt.
    pub fn pooled_channels(&self) -> i64 {
        self.config.pooled_projection_dim
    }

    /// Whether guidance is an input.
    pub fn embeds_guidance(&self) -> bool {
        self.config.guidance_embeds
    }

    /// Layers that adapters can change.
    pub fn adaptable(&self) -> &Layers {
        &self.adaptable
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// `sample` `[batch, latent_channels, h, w]` and `times` `[batch]` of 0..1000 → the shape of `sample`, of f32.
    pub fn forward(&self, sample: &Tensor, times: &Tensor, read: &FluxText<'_>) -> Tensor {
        let Placement { device, kind, .. } = self.placement;
        let place = |x: &Tensor| x.to_device(device).to_kind(kind);
        let (height, width) = height_width(sample);
        let length = read.text.size()[1];
        let rotary = Rotary::new(&self.config.axes_dims_rope, length, (height / PATCH, width / PATCH), device);
        let emb = self.embed(times, read.guidance, &place(read.pooled)); // [batch, dim]
        let mut x = self.x_embedder.forward(&place(&pack(sample))); // [batch, patches, dim]
        let mut context = self.context_embedder.forward(&place(read.text)); // [batch, length, dim]
        for block in &self.transformer_blocks {
            (x, context) = block.forward(&x, &context, &emb, &rotary);
        }
        let both = Tensor::cat(&[context, x], 1); // [batch, length + patches, dim]
        let both = self.single_transformer_blocks.iter().fold(both, |both, block| block.forward(&both, &emb, &rotary));
        let x = both.narrow(1, length, both.size()[1] - length);
        let x = self.proj_out.forward(&self.norm_out.forward(&x, &emb));
        unpack(&x, height, width).to_kind(Kind::Float)
    }

    /// The pipeline divides times by a thousand and the model multiplies them again, which f32 does not undo exactly.
    fn embed(&self, times: &Tensor, guidance: Option<&Tensor>, pooled: &Tensor) -> Tensor {
        let whole = |x: &Tensor| x.to_device(self.placement.device).to_kind(Kind::Float);
        let guidance = guidance.map(|guidance| whole(guidance) * PER_UNIT);
        self.time_text_embed.forward(&(whole(times) / PER_UNIT * PER_UNIT), guidance.as_ref(), pooled)
    }
}
