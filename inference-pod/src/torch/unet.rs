//! `UNet2DConditionModel` of Stable Diffusion 1, 2 and XL: noisy latents, times and text in, prediction out.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_condition.py`; fields are named as checkpoint keys.

mod blocks;
mod config;
mod transformer;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::blocks::{DownBlock, MidBlock, UpBlock};
use self::config::{AdditionConfig, UNetConfig};
use super::device::Placement;
use super::embeddings::{TimestepEmbedding, Timesteps};
use super::layers::{Conv2d, GroupNorm};
use super::lora::Layers;
use super::weights::{Section, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "unet";

#[derive(Debug)]
pub struct UNet2DConditionModel {
    conv_in: Conv2d,
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    addition: Option<Addition>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    in_channels: i64,
    out_channels: i64,
    text_channels: i64,
    placement: Placement,
    adaptable: Layers,
    bytes: u64,
}

/// Stable Diffusion XL's `text_time`: pooled text and sizes, added to the time.
#[derive(Debug)]
struct Addition {
    add_time_proj: Timesteps,
    add_embedding: TimestepEmbedding,
    channels: i64,
}

impl UNet2DConditionModel {
    /// Reads `unet/` of a checkpoint that is told times and text alone.
    pub fn load(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        Self::load_parts(checkpoint, placement, false)
    }

    /// Reads `unet/` of a checkpoint that is also told pooled text and sizes.
    pub fn load_with_added_conditions(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        Self::load_parts(checkpoint, placement, true)
    }

    fn load_parts(checkpoint: &Files, placement: Placement, adds: bool) -> Result<Self, LoadError> {
        let config = UNetConfig::read(checkpoint, adds)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(&config, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(config: &UNetConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let root = weights.root();
        let (first, time_channels) = (config.first_channels(), config.time_channels());
        let mut model = Self {
            conv_in: Conv2d::load(&root.at("conv_in"), config.in_channels, first, 3)?,
            time_proj: config.sinusoid(first),
            time_embedding: TimestepEmbedding::load(&root.at("time_embedding"), first, time_channels)?,
            addition: config.addition.map(|addition| Addition::load(&root, config, addition)).transpose()?,
            down_blocks: load_down(&root.at("down_blocks"), config)?,
            mid_block: MidBlock::load(&root.at("mid_block"), config)?,
            up_blocks: load_up(&root.at("up_blocks"), config)?,
            conv_norm_out: GroupNorm::load(&root.at("conv_norm_out"), first, config.groups, config.eps)?,
            conv_out: Conv2d::load(&root.at("conv_out"), first, config.out_channels, 3)?,
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            text_channels: config.text_channels(),
            placement,
            adaptable: Layers::default(),
            bytes: 0,
        };
        weights.finish(&[])?;
        model.adaptable = weights.layers();
        model.bytes = weights.bytes();
        Ok(model)
    }

    /// Of the latents.
    pub fn in_channels(&self) -> i64 {
        self.in_channels
    }

    /// Of the prediction.
    pub fn out_channels(&self) -> i64 {
        self.out_channels
    }

    /// Of one vector of the text.
    pub fn text_channels(&self) -> i64 {
        self.text_channels
    }

    /// Of each of the added sizes.
    pub fn time_id_channels(&self) -> i64 {
        self.addition.as_ref().map_or(0, |addition| addition.add_time_proj.channels)
    }

    /// Of the added conditions.
    pub fn added_channels(&self) -> i64 {
        self.addition.as_ref().map_or(0, |addition| addition.channels)
    }

    /// Layers that adapters can change.
    pub fn adaptable(&self) -> &Layers {
        &self.adaptable
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `pooled` text `[batch, _]` and sizes `[batch, 6]` → `[batch, added_channels]` of f32; `None` where the model is
    /// told neither. They stay the same over the steps. `unet_2d_condition.py`, `get_aug_embed`.
    pub fn added_conditions(&self, pooled: &Tensor, time_ids: &Tensor) -> Option<Tensor> {
        let sinusoid = self.addition.as_ref()?.add_time_proj;
        let device = self.placement.device;
        let sizes = sinusoid.forward(&time_ids.to_device(device).flatten(0, -1)); // [batch·6, time_id_channels]
        let sizes = sizes.view([time_ids.size()[0], -1]); // [batch, 6·time_id_channels]
        Some(Tensor::cat(&[pooled.to_device(device).to_kind(Kind::Float), sizes], 1))
    }

    /// `sample` `[batch, in, h, w]`, `times` `[batch]`, `text` `[batch, length, text_channels]` and where the model has
    /// them `added` conditions, each of any dtype → `[batch, out, h, w]` of f32.
    pub fn forward(&self, sample: &Tensor, times: &Tensor, text: &Tensor, added: Option<&Tensor>) -> Tensor {
        let Placement { device, kind } = self.placement;
        let place = |x: &Tensor| x.to_device(device).to_kind(kind);
        let (sample, text) = (place(sample), place(text));
        let mut time = self.time_embedding.forward(&self.time_proj.forward(&times.to_device(device)).to_kind(kind));
        if let (Some(addition), Some(added)) = (&self.addition, added) {
            time += addition.add_embedding.forward(&place(added));
        }
        let mut hidden = self.conv_in.forward(&sample);
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &time, &text, &mut skips);
        }
        hidden = self.mid_block.forward(&hidden, &time, &text);
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &time, &text, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&hidden).silu()).to_kind(Kind::Float)
    }
}

impl Addition {
    fn load(root: &Section, config: &UNetConfig, addition: AdditionConfig) -> Result<Self, WeightsError> {
        let AdditionConfig { time_id_channels, channels } = addition;
        let add_embedding = TimestepEmbedding::load(&root.at("add_embedding"), channels, config.time_channels())?;
        Ok(Self { add_time_proj: config.sinusoid(time_id_channels), add_embedding, channels })
    }
}

fn load_down(section: &Section, config: &UNetConfig) -> Result<Vec<DownBlock>, WeightsError> {
    let mut input = config.first_channels();
    let mut blocks = Vec::new();
    for (index, stage) in config.down.iter().enumerate() {
        let is_last = index + 1 == config.down.len();
        blocks.push(DownBlock::load(&section.at(index), config, stage, input, !is_last)?);
        input = stage.channels;
    }
    Ok(blocks)
}

fn load_up(section: &Section, config: &UNetConfig) -> Result<Vec<UpBlock>, WeightsError> {
    let mut input = config.mid.channels;
    let mut blocks = Vec::new();
    for (index, stage) in config.up.iter().enumerate() {
        // The last of the skips that a stage takes comes from the stage above it on the way down.
        let next = config.up.get(index + 1);
        let skip = next.unwrap_or(stage).channels;
        blocks.push(UpBlock::load(&section.at(index), config, stage, (input, skip), next.is_some())?);
        input = stage.channels;
    }
    Ok(blocks)
}
