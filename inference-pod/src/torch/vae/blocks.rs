//! The stages of both halves: those that halve the size, a middle with attention over pixels, those that double it.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_blocks.py` and `models/attention_processor.py`.

use tch::Tensor;

use super::config::VaeConfig;
use crate::torch::layers::{Conv2d, GroupNorm, Linear, attend};
use crate::torch::resnet::{ResnetBlock2D, Upsample2D, height_width};
use crate::torch::weights::{Section, WeightsError};

/// `UNetMidBlock2D`
#[derive(Debug)]
pub(super) struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attentions: Option<Attention>,
}

impl MidBlock {
    pub(super) fn load(section: &Section, config: &VaeConfig, channels: i64) -> Result<Self, WeightsError> {
        let resnet =
            |layer: usize| ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), channels, channels);
        let attention = || Attention::load(&section.at("attentions").at(0), config, channels);
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attentions: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.resnets[0].forward(x, None);
        if let Some(attention) = &self.attentions {
            x = attention.forward(&x);
        }
        self.resnets[1].forward(&x, None)
    }
}

/// One head over all pixels, with a norm before and a residual around.
#[derive(Debug)]
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn load(section: &Section, config: &VaeConfig, channels: i64) -> Result<Self, WeightsError> {
        // Exports before diffusers 0.17 name them as their `AttentionBlock` did.
        let is_old = section.contains("query.weight");
        let [q, k, v, out] =
            if is_old { ["query", "key", "value", "proj_attn"] } else { ["to_q", "to_k", "to_v", "to_out.0"] };
        let linear = |name: &str| Linear::load(&section.at(name), channels, channels);
        let eps = config.resnet().eps;
        Ok(Self {
            group_norm: GroupNorm::load(&section.at("group_norm"), channels, config.groups, eps)?,
            to_q: linear(q)?,
            to_k: linear(k)?,
            to_v: linear(v)?,
            to_out: linear(out)?,
        })
    }

    /// `[batch, channels, h, w]` → the same shape
    fn forward(&self, x: &Tensor) -> Tensor {
        let (h, w) = height_width(x);
        let tokens = self.group_norm.forward(x).flatten(2, 3).transpose(1, 2); // [batch, h·w, channels]
        let (query, key, value) = (self.to_q.forward(&tokens), self.to_k.forward(&tokens), self.to_v.forward(&tokens));
        let out = self.to_out.forward(&attend(&query, &key, &value, 1, false));
        out.transpose(1, 2).unflatten(2, [h, w]) + x
    }
}

/// `UpDecoderBlock2D`
#[derive(Debug)]
pub(super) struct UpDecoderBlock {
    resnets: Vec<ResnetBlock2D>,
    upsamplers: Option<Upsample2D>,
}

impl UpDecoderBlock {
    pub(super) fn load(
        section: &Section,
        config: &VaeConfig,
        (input, channels): (i64, i64),
        upsamples: bool,
    ) -> Result<Self, WeightsError> {
        let resnet = |layer: usize| {
            let input = if layer == 0 { input } else { channels };
            ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), input, channels)
        };
        let up = || Upsample2D::load(&section.at("upsamplers").at(0), channels);
        Ok(Self {
            // One more than on the way down.
            resnets: (0..=config.layers_per_block).map(resnet).collect::<Result<_, _>>()?,
            upsamplers: upsamples.then(up).transpose()?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.resnets.iter().fold(x.shallow_clone(), |x, resnet| resnet.forward(&x, None));
        match &self.upsamplers {
            Some(upsampler) => {
                let (h, w) = height_width(&x);
                upsampler.forward(&x, (2 * h, 2 * w))
            }
            None => x,
        }
    }
}

/// `DownEncoderBlock2D`
#[derive(Debug)]
pub(super) struct DownEncoderBlock {
    resnets: Vec<ResnetBlock2D>,
    downsamplers: Option<Conv2d>,
}

impl DownEncoderBlock {
    pub(super) fn load(
        section: &Section,
        config: &VaeConfig,
        (input, channels): (i64, i64),
        downsamples: bool,
    ) -> Result<Self, WeightsError> {
        let resnet = |layer: usize| {
            let input = if layer == 0 { input } else { channels };
            ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), input, channels)
        };
        let down = || {
            let section = section.at("downsamplers").at(0).at("conv");
            Ok(Conv2d::load_with_stride(&section, channels, channels, 3, 2)?.without_padding())
        };
        Ok(Self {
            resnets: (0..config.layers_per_block).map(resnet).collect::<Result<_, _>>()?,
            downsamplers: downsamples.then(down).transpose()?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.resnets.iter().fold(x.shallow_clone(), |x, resnet| resnet.forward(&x, None));
        match &self.downsamplers {
            // downsampling.py, `padding == 0`: one row below and one column to the right, so that the size is halved.
            Some(conv) => conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
            None => x,
        }
    }
}
