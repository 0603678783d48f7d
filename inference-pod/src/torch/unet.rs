//! `UNet2DConditionModel` of Stable Diffusion 1, 2 and XL: noisy latents, times and text in, prediction out.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_condition.py`; fields are named as checkpoint keys.

mod blocks;
mod config;
mod encoder;
mod transformer;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::blocks::UpBlock;
pub(super) use self::config::UNetConfig;
use self::config::WayUp;
pub use self::encoder::UNetInputs;
pub(super) use self::encoder::{Encoded, Encoder};
use super::device::Placement;
use super::layers::{Conv2d, GroupNorm};
use super::lora::Layers;
use super::weights::{Section, Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "unet";

#[derive(Debug)]
pub struct UNet2DConditionModel {
    encoder: Encoder,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    in_channels: i64,
    out_channels: i64,
    adaptable: Layers,
    tensors: Tensors,
}

/// What a `ControlNet` adds to the skips, in their order, and to the middle: each `[batch, channels, h, w]`.
#[derive(Debug)]
pub struct Residuals {
    pub down: Vec<Tensor>,
    pub mid: Tensor,
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
        let (config, way_up) = UNetConfig::read(checkpoint, adds)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(&config, &way_up, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(
        config: &UNetConfig,
        way_up: &WayUp,
        weights: &Weights,
        placement: Placement,
    ) -> Result<Self, WeightsError> {
        let root = weights.root();
        let first = config.first_channels();
        let mut model = Self {
            encoder: Encoder::load(&root, config, placement)?,
            up_blocks: load_up(&root.at("up_blocks"), config, way_up)?,
            conv_norm_out: GroupNorm::load(&root.at("conv_norm_out"), first, config.groups, config.eps)?,
            conv_out: Conv2d::load(&root.at("conv_out"), first, way_up.out_channels, 3)?,
            in_channels: config.in_channels,
            out_channels: way_up.out_channels,
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
        self.in_channels
    }

    /// Of the prediction.
    pub fn out_channels(&self) -> i64 {
        self.out_channels
    }

    /// Of one vector of the text.
    pub fn text_channels(&self) -> i64 {
        self.encoder.text_channels()
    }

    /// Of each of the added sizes.
    pub fn time_id_channels(&self) -> i64 {
        self.encoder.time_id_channels()
    }

    /// Of the added conditions.
    pub fn added_channels(&self) -> i64 {
        self.encoder.added_channels()
    }

    pub(super) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Layers that adapters can change.
    pub fn adaptable(&self) -> &Layers {
        &self.adaptable
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// `pooled` text `[batch, _]` and sizes `[batch, 6]` → `[batch, added_channels]` of f32; `None` where the model is
    /// told neither. They stay the same over the steps. `unet_2d_condition.py`, `get_aug_embed`.
    pub fn added_conditions(&self, pooled: &Tensor, time_ids: &Tensor) -> Option<Tensor> {
        self.encoder.added_conditions(pooled, time_ids)
    }

    /// → `[batch, out, h, w]` of f32. `residuals` are what a `ControlNet` made of the same inputs.
    pub fn forward(&self, inputs: UNetInputs, residuals: Option<&Residuals>) -> Tensor {
        let Encoded { time, text, mut skips, middle: mut hidden } = self.encoder.forward(inputs, None);
        if let Some(Residuals { down, mid }) = residuals {
            skips = skips.iter().zip(down).map(|(skip, residual)| skip + residual).collect();
            hidden += mid;
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &time, &text, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&hidden).silu_()).to_kind(Kind::Float).contiguous()
    }
}

fn load_up(section: &Section, config: &UNetConfig, way_up: &WayUp) -> Result<Vec<UpBlock>, WeightsError> {
    let mut input = config.mid.channels;
    let mut blocks = Vec::new();
    for (index, stage) in way_up.up.iter().enumerate() {
        // The last of the skips that a stage takes comes from the stage above it on the way down.
        let next = way_up.up.get(index + 1);
        let skip = next.unwrap_or(stage).channels;
        blocks.push(UpBlock::load(&section.at(index), config, stage, (input, skip), next.is_some())?);
        input = stage.channels;
    }
    Ok(blocks)
}
