//! What `transformer/config.json` says. Refuses by name what this transformer does not compute.

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use easel_checkpoints::Files;

#[derive(Debug)]
pub(super) struct TransformerConfig {
    pub(super) patch_size: i64,
    pub(super) in_channels: i64,
    pub(super) out_channels: i64,
    pub(super) num_layers: usize,
    pub(super) joint_attention_dim: i64,
    pub(super) pooled_projection_dim: i64,
    /// Patches on a side of the grid of positions.
    pub(super) pos_embed_max_size: i64,
    head_dim: i64,
    heads: i64,
    has_qk_norm: bool,
    dual_attention_layers: Vec<usize>,
}

/// What makes one block different from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockConfig {
    pub(super) heads: i64,
    /// Whether queries and keys are normed.
    pub(super) has_qk_norm: bool,
    /// Whether the pixels attend to themselves once more: 3.5's first blocks.
    pub(super) has_dual_attention: bool,
    /// The text is read and not changed: the last block.
    pub(super) context_pre_only: bool,
}

impl TransformerConfig {
    pub(super) fn read(checkpoint: &Files) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "transformer/config.json")?;
        let in_channels = config.take_or("in_channels", 16)?;
        let qk_norm: Option<String> = config.take("qk_norm")?;
        if let Some(other) = qk_norm.as_deref().filter(|norm| *norm != "rms_norm") {
            return Err(config.unsupported("qk_norm", other));
        }
        let read = Self {
            patch_size: config.take_or("patch_size", 2)?,
            in_channels,
            out_channels: config.take_or("out_channels", in_channels)?,
            num_layers: config.take_or("num_layers", 18)?,
            joint_attention_dim: config.take_or("joint_attention_dim", 4096)?,
            pooled_projection_dim: config.take_or("pooled_projection_dim", 2048)?,
            pos_embed_max_size: config.need("pos_embed_max_size")?,
            head_dim: config.take_or("attention_head_dim", 64)?,
            heads: config.take_or("num_attention_heads", 18)?,
            has_qk_norm: qk_norm.is_some(),
            dual_attention_layers: config.take_or("dual_attention_layers", Vec::new())?,
        };
        let caption = config.take_or("caption_projection_dim", 1152)?;
        if caption != read.inner_dim() {
            return Err(config.unsupported("caption_projection_dim", caption));
        }
        // It says how the grid of positions was made, and the grid is in the weights.
        config.ignore(&["sample_size"]);
        config.finish(&[])?;
        Ok(read)
    }

    /// Of one vector, of pixels and text alike.
    pub(super) fn inner_dim(&self) -> i64 {
        self.heads * self.head_dim
    }

    pub(super) fn block(&self, layer: usize) -> BlockConfig {
        BlockConfig {
            heads: self.heads,
            has_qk_norm: self.has_qk_norm,
            has_dual_attention: self.dual_attention_layers.contains(&layer),
            context_pre_only: layer + 1 == self.num_layers,
        }
    }
}
