//! What `transformer/config.json` says. Refuses by name what this transformer does not compute.

use easel_checkpoints::Files;
use serde_json::json;

use super::pack::PATCH;
use crate::pipeline::LoadError;
use crate::torch::config::Config;

#[derive(Debug)]
pub(super) struct FluxConfig {
    /// Of packed latents.
    pub(super) in_channels: i64,
    pub(super) num_layers: usize,
    pub(super) num_single_layers: usize,
    pub(super) heads: i64,
    pub(super) joint_attention_dim: i64,
    pub(super) pooled_projection_dim: i64,
    pub(super) guidance_embeds: bool,
    /// Of one head, how many numbers turn with each of: nothing, row, column.
    pub(super) axes_dims_rope: [i64; 3],
    head_dim: i64,
}

impl FluxConfig {
    pub(super) fn read(checkpoint: &Files) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "transformer/config.json")?;
        let read = Self {
            in_channels: config.take_or("in_channels", 64)?,
            num_layers: config.take_or("num_layers", 19)?,
            num_single_layers: config.take_or("num_single_layers", 38)?,
            heads: config.take_or("num_attention_heads", 24)?,
            joint_attention_dim: config.take_or("joint_attention_dim", 4096)?,
            pooled_projection_dim: config.take_or("pooled_projection_dim", 768)?,
            guidance_embeds: config.take_or("guidance_embeds", false)?,
            axes_dims_rope: config.take_or("axes_dims_rope", [16, 56, 56])?,
            head_dim: config.take_or("attention_head_dim", 128)?,
        };
        if read.in_channels % PATCH.pow(2) != 0 {
            return Err(config.unsupported("in_channels", read.in_channels));
        }
        let axes = read.axes_dims_rope;
        if axes.iter().sum::<i64>() != read.head_dim || axes.iter().any(|dim| dim % 2 != 0) {
            return Err(config.unsupported("axes_dims_rope", axes));
        }
        // FLUX.1-Fill and its like see more than they predict.
        config.finish(&[("patch_size", json!(1)), ("out_channels", json!(read.in_channels))])?;
        Ok(read)
    }

    /// Of one vector, of pixels and text alike.
    pub(super) fn inner_dim(&self) -> i64 {
        self.heads * self.head_dim
    }
}
