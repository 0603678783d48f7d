//! `UNet2DConditionModel` of Stable Diffusion 1 and 2: noisy latents, times and text in, prediction out.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_condition.py`; fields are named as checkpoint keys.

mod blocks;
mod config;
mod time;
mod transformer;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::blocks::{DownBlock, MidBlock, UpBlock};
use self::config::UNetConfig;
use self::time::TimeEmbedding;
use super::device::Placement;
use super::layers::{Conv2d, GroupNorm};
use super::weights::{Section, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "unet";

#[derive(Debug)]
pub struct UNet2DConditionModel {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    in_channels: i64,
    out_channels: i64,
    text_channels: i64,
    placement: Placement,
    bytes: u64,
}

impl UNet2DConditionModel {
    /// Reads `unet/` of a checkpoint.
    pub fn load(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        let config = UNetConfig::read(checkpoint)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(&config, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(config: &UNetConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let root = weights.root();
        let first = config.first_channels();
        let mut model = Self {
            conv_in: Conv2d::load(&root.at("conv_in"), config.in_channels, first, 3)?,
            time_embedding: TimeEmbedding::load(&root.at("time_embedding"), config)?,
            down_blocks: load_down(&root.at("down_blocks"), config)?,
            mid_block: MidBlock::load(&root.at("mid_block"), config)?,
            up_blocks: load_up(&root.at("up_blocks"), config)?,
            conv_norm_out: GroupNorm::load(&root.at("conv_norm_out"), first, config.groups, config.eps)?,
            conv_out: Conv2d::load(&root.at("conv_out"), first, config.out_channels, 3)?,
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            text_channels: config.text_channels(),
            placement,
            bytes: 0,
        };
        weights.finish(&[])?;
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

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `sample` `[batch, in, h, w]`, `times` `[batch]` and `text` `[batch, length, text_channels]`, each of any dtype →
    /// `[batch, out, h, w]` of f32.
    pub fn forward(&self, sample: &Tensor, times: &Tensor, text: &Tensor) -> Tensor {
        let Placement { device, kind } = self.placement;
        let (sample, text) = (sample.to_device(device).to_kind(kind), text.to_device(device).to_kind(kind));
        let time = self.time_embedding.forward(&times.to_device(device), kind);
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
