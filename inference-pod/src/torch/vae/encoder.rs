//! The half of the VAE that makes latents of a picture.
//! Transcribed from diffusers 0.42.1, `models/autoencoders/vae.py` and `autoencoder_kl.py`.

use tch::Tensor;

use super::blocks::{DownEncoderBlock, MidBlock};
use super::config::VaeConfig;
use crate::torch::layers::{Conv2d, GroupNorm};
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
}

impl Encoder {
    /// `root` is the whole VAE's: `quant_conv` stands beside `encoder`.
    pub(super) fn load(root: &Section, config: &VaeConfig) -> Result<Self, WeightsError> {
        let section = root.at("encoder");
        let (first, last) = (config.channels[0], config.channels[config.channels.len() - 1]);
        let (resnet, moments) = (config.resnet(), 2 * config.latent_channels);
        let mut down_blocks = Vec::new();
        let mut input = first;
        for (index, &channels) in config.channels.iter().enumerate() {
            let downsamples = index + 1 < config.channels.len();
            let block = section.at("down_blocks").at(index);
            down_blocks.push(DownEncoderBlock::load(&block, config, (input, channels), downsamples)?);
            input = channels;
        }
        let quant_conv = || Conv2d::load(&root.at("quant_conv"), moments, moments, 1);
        Ok(Self {
            conv_in: Conv2d::load(&section.at("conv_in"), config.out_channels, first, 3)?,
            down_blocks,
            mid_block: MidBlock::load(&section.at("mid_block"), config, last)?,
            conv_norm_out: GroupNorm::load(&section.at("conv_norm_out"), last, resnet.groups, resnet.eps)?,
            conv_out: Conv2d::load(&section.at("conv_out"), last, moments, 3)?,
            quant_conv: config.use_quant_conv.then(quant_conv).transpose()?,
        })
    }

    /// `[batch, 3, H, W]` → means and logarithms of variances, `[batch, 2·latent_channels, h, w]`
    pub(super) fn forward(&self, pixels: &Tensor) -> Tensor {
        let x = self.conv_in.forward(pixels);
        let x = self.down_blocks.iter().fold(x, |x, block| block.forward(&x));
        let x = self.mid_block.forward(&x);
        let moments = self.conv_out.forward(&self.conv_norm_out.forward(&x).silu());
        match &self.quant_conv {
            Some(conv) => conv.forward(&moments),
            None => moments,
        }
    }
}
