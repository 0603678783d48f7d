//! Latents as a sequence of patches, with their place in the picture.
//! Transcribed from diffusers 0.42.1, `models/embeddings.py`, `PatchEmbed`.

use tch::Tensor;

use super::config::TransformerConfig;
use crate::torch::layers::Conv2d;
use crate::torch::resnet::height_width;
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct PatchEmbed {
    proj: Conv2d,
    /// `[1, max_size², dim]`
    pos_embed: Tensor,
    max_size: i64,
}

impl PatchEmbed {
    pub(super) fn load(section: &Section, config: &TransformerConfig) -> Result<Self, WeightsError> {
        let (dim, patch, max_size) = (config.inner_dim(), config.patch_size, config.pos_embed_max_size);
        let proj = Conv2d::load_with_stride(&section.at("proj"), config.in_channels, dim, patch, patch)?;
        Ok(Self {
            proj: proj.without_padding(),
            pos_embed: section.tensor("pos_embed", &[1, max_size * max_size, dim])?,
            max_size,
        })
    }

    /// `[batch, in, h, w]` → `[batch, patches, dim]`
    pub(super) fn forward(&self, latents: &Tensor) -> Tensor {
        let x = self.proj.forward(latents); // [batch, dim, rows, columns]
        let (rows, columns) = height_width(&x);
        x.flatten(2, 3).transpose(1, 2).contiguous() + self.cropped_pos_embed(rows, columns)
    }

    /// The middle of the grid: `[1, rows·columns, dim]`
    fn cropped_pos_embed(&self, rows: i64, columns: i64) -> Tensor {
        let (top, left) = ((self.max_size - rows) / 2, (self.max_size - columns) / 2);
        let grid = self.pos_embed.view([self.max_size, self.max_size, -1]);
        grid.narrow(0, top, rows).narrow(1, left, columns).reshape([1, rows * columns, -1])
    }
}
