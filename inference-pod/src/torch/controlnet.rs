//! `ControlNetModel`: a picture that steers a `UNet`, as residuals for its skips and its middle.
//! Transcribed from diffusers 0.42.1, `models/controlnets/controlnet.py`; fields are named as checkpoint keys.

mod config;
mod embedding;

use easel_checkpoints::Files;
use tch::Tensor;

use self::config::{ChannelOrder, ControlNetConfig};
use self::embedding::ControlNetConditioningEmbedding;
use super::device::Placement;
use super::layers::Conv2d;
use super::unet::{Encoded, Encoder, Residuals, UNet2DConditionModel, UNetInputs};
use super::weights::{Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

const PART: &str = "controlnet";

#[derive(Debug)]
pub struct ControlNetModel {
    encoder: Encoder,
    controlnet_cond_embedding: ControlNetConditioningEmbedding,
    controlnet_down_blocks: Vec<Conv2d>,
    controlnet_mid_block: Conv2d,
    order: ChannelOrder,
    in_channels: i64,
    /// Pixels that become one position of the latents.
    factor: u32,
    placement: Placement,
    tensors: Tensors,
}

impl ControlNetModel {
    /// Reads `controlnet/` of a checkpoint. `adds`: whether its `UNet` is told pooled text and sizes, which the
    /// `ControlNet` must be told too.
    pub fn load(checkpoint: &Files, placement: Placement, adds: bool) -> Result<Self, LoadError> {
        let config = ControlNetConfig::read(checkpoint, adds)?;
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        Self::build(&config, &weights, placement).map_err(|error| error.of(PART))
    }

    fn build(config: &ControlNetConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let root = weights.root();
        let encoder = Encoder::load(&root, &config.encoder, placement)?;
        let embedding = root.at("controlnet_cond_embedding");
        let first = config.encoder.first_channels();
        let blocks = root.at("controlnet_down_blocks");
        let zero_conv = |(index, &channels)| Conv2d::load(&blocks.at(index), channels, channels, 1);
        let middle = config.encoder.mid_channels();
        let mut model = Self {
            controlnet_cond_embedding: ControlNetConditioningEmbedding::load(&embedding, &config.embedding, first)?,
            controlnet_down_blocks: encoder
                .skip_channels()
                .iter()
                .enumerate()
                .map(zero_conv)
                .collect::<Result<_, _>>()?,
            controlnet_mid_block: Conv2d::load(&root.at("controlnet_mid_block"), middle, middle, 1)?,
            encoder,
            order: config.order,
            in_channels: config.encoder.in_channels,
            factor: config.factor(),
            placement,
            tensors: Tensors::default(),
        };
        weights.finish(&[])?;
        model.tensors = weights.tensors();
        Ok(model)
    }

    /// Of the latents.
    pub fn in_channels(&self) -> i64 {
        self.in_channels
    }

    /// Of one vector of the text.
    pub fn text_channels(&self) -> i64 {
        self.encoder.text_channels()
    }

    /// Of the added conditions.
    pub fn added_channels(&self) -> i64 {
        self.encoder.added_channels()
    }

    /// Pixels of a picture, wide and high, that become one position of a hint.
    pub fn factor(&self) -> u32 {
        self.factor
    }

    /// Whether it was made from a `UNet` of this shape.
    pub fn fits(&self, unet: &UNet2DConditionModel) -> bool {
        self.encoder.is_like(unet.encoder())
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// A picture `[batch, 3, h·factor, w·factor]` of 0..1 → `[batch, channels, h, w]` in the model's dtype, which stays
    /// the same over the steps. diffusers computes it in every step.
    pub fn hint(&self, picture: &Tensor) -> Tensor {
        let picture = picture.to_device(self.placement.device).to_kind(self.placement.kind);
        self.controlnet_cond_embedding.forward(&match self.order {
            ChannelOrder::Rgb => picture,
            ChannelOrder::Bgr => picture.flip([1]),
        })
    }

    /// `hint` `[batch, channels, h, w]`; the residuals of each row are multiplied by its `conditioning_scale`.
    pub fn forward(&self, inputs: UNetInputs, hint: &Tensor, conditioning_scale: &[f32]) -> Residuals {
        let Encoded { skips, middle, .. } = self.encoder.forward(inputs, Some(hint));
        let scale = Tensor::from_slice(conditioning_scale).to_device(self.placement.device);
        let scale = scale.to_kind(self.placement.kind).view([-1, 1, 1, 1]);
        let down = self.controlnet_down_blocks.iter().zip(&skips).map(|(conv, skip)| conv.forward(skip) * &scale);
        Residuals { down: down.collect(), mid: self.controlnet_mid_block.forward(&middle) * &scale }
    }
}
