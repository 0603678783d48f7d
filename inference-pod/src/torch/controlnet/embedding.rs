//! Reads the picture that steers: `ControlNetConditioningEmbedding`.
//! Transcribed from diffusers 0.42.1, `models/controlnets/controlnet.py`.

use tch::Tensor;

use crate::torch::layers::Conv2d;
use crate::torch::weights::{Section, WeightsError};

/// Red, green and blue.
pub(super) const PICTURE_CHANNELS: i64 = 3;

#[derive(Debug)]
pub(super) struct ControlNetConditioningEmbedding {
    conv_in: Conv2d,
    /// In pairs, of which the second halves height and width.
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ControlNetConditioningEmbedding {
    /// `channels` of its layers, at least one, and `output`.
    pub(super) fn load(section: &Section, channels: &[i64], output: i64) -> Result<Self, WeightsError> {
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mut blocks = Vec::new();
        for pair in channels.windows(2) {
            let at = section.at("blocks");
            blocks.push(Conv2d::load(&at.at(blocks.len()), pair[0], pair[0], 3)?);
            blocks.push(Conv2d::load_with_stride(&at.at(blocks.len()), pair[0], pair[1], 3, 2)?);
        }
        Ok(Self {
            conv_in: Conv2d::load(&section.at("conv_in"), PICTURE_CHANNELS, first, 3)?,
            blocks,
            conv_out: Conv2d::load(&section.at("conv_out"), last, output, 3)?,
        })
    }

    /// `[batch, 3, h·factor, w·factor]` → `[batch, output, h, w]`
    pub(super) fn forward(&self, picture: &Tensor) -> Tensor {
        let read = self.conv_in.forward(picture).silu();
        let read = self.blocks.iter().fold(read, |x, block| block.forward(&x).silu());
        self.conv_out.forward(&read)
    }
}
