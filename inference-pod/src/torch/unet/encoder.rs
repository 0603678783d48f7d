//! The way down of a `UNet` to its middle, of which a `ControlNet` is a copy.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_condition.py`; does not know what becomes of the skips.

use tch::{Kind, Tensor};

use super::blocks::{DownBlock, MidBlock};
use super::config::{AdditionConfig, UNetConfig};
use crate::torch::device::Placement;
use crate::torch::embeddings::{TimestepEmbedding, Timesteps};
use crate::torch::layers::Conv2d;
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(in crate::torch) struct Encoder {
    conv_in: Conv2d,
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    addition: Option<Addition>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    /// Of each skip, in their order.
    skip_channels: Vec<i64>,
    text_channels: i64,
    placement: Placement,
}

/// What a `UNet` and its `ControlNet` are shown, each tensor of any dtype.
#[derive(Clone, Copy, Debug)]
pub struct UNetInputs<'a> {
    /// `[batch, in, h, w]`
    pub sample: &'a Tensor,
    /// `[batch]`
    pub times: &'a Tensor,
    /// `[batch, length, text_channels]`
    pub text: &'a Tensor,
    /// `[batch, added_channels]`, where the model has added conditions.
    pub added: Option<&'a Tensor>,
}

/// What comes out of the way down, in the model's dtype.
#[derive(Debug)]
pub(in crate::torch) struct Encoded {
    /// `[batch, time_channels]`
    pub(super) time: Tensor,
    pub(super) text: Tensor,
    /// `[batch, channels, h, w]` each, from the finest to the coarsest.
    pub(in crate::torch) skips: Vec<Tensor>,
    /// `[batch, channels, h, w]`
    pub(in crate::torch) middle: Tensor,
}

/// Stable Diffusion XL's `text_time`: pooled text and sizes, added to the time.
#[derive(Debug)]
struct Addition {
    add_time_proj: Timesteps,
    add_embedding: TimestepEmbedding,
    channels: i64,
}

impl Encoder {
    pub(in crate::torch) fn load(
        root: &Section,
        config: &UNetConfig,
        placement: Placement,
    ) -> Result<Self, WeightsError> {
        let (first, time_channels) = (config.first_channels(), config.time_channels());
        Ok(Self {
            conv_in: Conv2d::load(&root.at("conv_in"), config.in_channels, first, 3)?,
            time_proj: config.sinusoid(first),
            time_embedding: TimestepEmbedding::load(&root.at("time_embedding"), first, time_channels)?,
            addition: config.addition.map(|addition| Addition::load(root, config, addition)).transpose()?,
            down_blocks: load_down(&root.at("down_blocks"), config)?,
            mid_block: MidBlock::load(&root.at("mid_block"), config)?,
            skip_channels: config.skip_channels(),
            text_channels: config.text_channels(),
            placement,
        })
    }

    /// Of each skip, in their order.
    pub(in crate::torch) fn skip_channels(&self) -> &[i64] {
        &self.skip_channels
    }

    /// Whether the skips of both have the same shapes, and both read the same added conditions.
    pub(in crate::torch) fn is_like(&self, other: &Self) -> bool {
        let sinusoid = |encoder: &Self| encoder.addition.as_ref().map(|addition| addition.add_time_proj);
        self.skip_channels == other.skip_channels && sinusoid(self) == sinusoid(other)
    }

    pub(in crate::torch) fn text_channels(&self) -> i64 {
        self.text_channels
    }

    /// Of each of the added sizes.
    pub(in crate::torch) fn time_id_channels(&self) -> i64 {
        self.addition.as_ref().map_or(0, |addition| addition.add_time_proj.channels)
    }

    pub(in crate::torch) fn added_channels(&self) -> i64 {
        self.addition.as_ref().map_or(0, |addition| addition.channels)
    }

    /// See [`super::UNet2DConditionModel::added_conditions`].
    pub(super) fn added_conditions(&self, pooled: &Tensor, time_ids: &Tensor) -> Option<Tensor> {
        let sinusoid = self.addition.as_ref()?.add_time_proj;
        let device = self.placement.device;
        let sizes = sinusoid.forward(&time_ids.to_device(device).flatten(0, -1)); // [batch·6, time_id_channels]
        let sizes = sizes.view([time_ids.size()[0], -1]); // [batch, 6·time_id_channels]
        Some(Tensor::cat(&[pooled.to_device(device).to_kind(Kind::Float), sizes], 1))
    }

    /// `hint` `[batch, first channels, h, w]` is added to what the latents become at first.
    pub(in crate::torch) fn forward(&self, inputs: UNetInputs, hint: Option<&Tensor>) -> Encoded {
        let UNetInputs { sample, times, text, added } = inputs;
        let Placement { device, kind, .. } = self.placement;
        let place = |x: &Tensor| x.to_device(device).to_kind(kind);
        let (sample, text) = (place(sample), place(text));
        let mut time = self.time_embedding.forward(&self.time_proj.forward(&times.to_device(device)).to_kind(kind));
        if let (Some(addition), Some(added)) = (&self.addition, added) {
            time += addition.add_embedding.forward(&place(added));
        }
        let mut hidden = self.conv_in.forward(&sample);
        if let Some(hint) = hint {
            hidden += hint;
        }
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &time, &text, &mut skips);
        }
        let middle = self.mid_block.forward(&hidden, &time, &text);
        Encoded { time, text, skips, middle }
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
