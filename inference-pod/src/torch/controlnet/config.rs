//! What `controlnet/config.json` says beside what a `UNet` says of its way down. Refuses by name what is not computed.

use easel_checkpoints::Files;
use serde::Deserialize;

use super::embedding::PICTURE_CHANNELS;
use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::unet::UNetConfig;

/// Published ones have four.
const MAX_EMBEDDING_LAYERS: usize = 8;

#[derive(Debug)]
pub(super) struct ControlNetConfig {
    pub(super) encoder: UNetConfig,
    /// Of the layers that read the picture: each after the first halves it.
    pub(super) embedding: Vec<i64>,
    pub(super) order: ChannelOrder,
}

/// Of the picture, as the weights were trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChannelOrder {
    Rgb,
    Bgr,
}

impl ControlNetConfig {
    pub(super) fn read(checkpoint: &Files, adds: bool) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "controlnet/config.json")?;
        let embedding: Vec<i64> = config.take_or("conditioning_embedding_out_channels", vec![16, 32, 96, 256])?;
        if embedding.is_empty() || embedding.len() > MAX_EMBEDDING_LAYERS {
            return Err(config.unsupported("conditioning_embedding_out_channels", &embedding));
        }
        let order = config.take_or("controlnet_conditioning_channel_order", ChannelOrder::Rgb)?;
        let channels = config.take_or("conditioning_channels", PICTURE_CHANNELS)?;
        if channels != PICTURE_CHANNELS {
            return Err(config.unsupported("conditioning_channels", channels));
        }
        // `global_pool_conditions` turns guess_mode on, which is not computed: it is refused with the rest.
        Ok(Self { encoder: UNetConfig::read_the_way_down(config, adds)?, embedding, order })
    }

    pub(super) fn factor(&self) -> u32 {
        1 << (self.embedding.len() - 1)
    }
}
