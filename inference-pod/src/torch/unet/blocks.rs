//! The three kinds of stages: down, middle, up. A stage without attention is diffusers' `DownBlock2D` or `UpBlock2D`.
//! Transcribed from diffusers 0.42.1, `models/unets/unet_2d_blocks.py`.

use tch::Tensor;

use super::config::{Stage, UNetConfig};
use super::transformer::Transformer2DModel;
use crate::torch::resnet::{Downsample2D, ResnetBlock2D, Upsample2D, height_width};
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    /// One after each residual block, or none at all.
    attentions: Vec<Transformer2DModel>,
    downsamplers: Option<Downsample2D>,
}

impl DownBlock {
    pub(super) fn load(
        section: &Section,
        config: &UNetConfig,
        stage: &Stage,
        input: i64,
        downsamples: bool,
    ) -> Result<Self, WeightsError> {
        let resnet = |layer: usize| {
            let input = if layer == 0 { input } else { stage.channels };
            ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), input, stage.channels)
        };
        let down = || Downsample2D::load(&section.at("downsamplers").at(0), stage.channels);
        Ok(Self {
            resnets: (0..stage.layers).map(resnet).collect::<Result<_, _>>()?,
            attentions: load_attentions(section, config, stage, stage.layers)?,
            downsamplers: downsamples.then(down).transpose()?,
        })
    }

    /// Leaves what the way up will need on `skips`.
    pub(super) fn forward(&self, mut x: Tensor, time: &Tensor, text: &Tensor, skips: &mut Vec<Tensor>) -> Tensor {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(time));
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(&x, text);
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsampler) = &self.downsamplers {
            x = downsampler.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }
}

/// `UNetMidBlock2DCrossAttn`
#[derive(Debug)]
pub(super) struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attentions: Vec<Transformer2DModel>,
}

impl MidBlock {
    pub(super) fn load(section: &Section, config: &UNetConfig) -> Result<Self, WeightsError> {
        let stage = &config.mid;
        let resnet = |layer: usize| {
            ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), stage.channels, stage.channels)
        };
        Ok(Self { resnets: [resnet(0)?, resnet(1)?], attentions: load_attentions(section, config, stage, 1)? })
    }

    pub(super) fn forward(&self, x: &Tensor, time: &Tensor, text: &Tensor) -> Tensor {
        let x = self.resnets[0].forward(x, Some(time));
        let x = self.attentions.iter().fold(x, |x, attention| attention.forward(&x, text));
        self.resnets[1].forward(&x, Some(time))
    }
}

#[derive(Debug)]
pub(super) struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    upsamplers: Option<Upsample2D>,
}

impl UpBlock {
    /// `input` are the channels that come from below, `last_skip` those of the last skip that this stage takes.
    pub(super) fn load(
        section: &Section,
        config: &UNetConfig,
        stage: &Stage,
        (input, last_skip): (i64, i64),
        upsamples: bool,
    ) -> Result<Self, WeightsError> {
        let resnet = |layer: usize| {
            let input = if layer == 0 { input } else { stage.channels };
            let skip = if layer + 1 == stage.layers { last_skip } else { stage.channels };
            ResnetBlock2D::load(&section.at("resnets").at(layer), config.resnet(), input + skip, stage.channels)
        };
        let up = || Upsample2D::load(&section.at("upsamplers").at(0), stage.channels);
        Ok(Self {
            resnets: (0..stage.layers).map(resnet).collect::<Result<_, _>>()?,
            attentions: load_attentions(section, config, stage, stage.layers)?,
            upsamplers: upsamples.then(up).transpose()?,
        })
    }

    /// Takes as many skips as it has residual blocks.
    pub(super) fn forward(&self, mut x: Tensor, time: &Tensor, text: &Tensor, skips: &mut Vec<Tensor>) -> Tensor {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down left a skip for every residual block");
            x = resnet.forward(&Tensor::cat(&[x, skip], 1), Some(time));
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(&x, text);
            }
        }
        if let (Some(upsampler), Some(skip)) = (&self.upsamplers, skips.last()) {
            // Up to the size of the skip that comes next, which is not always twice: 5 was halved to 3.
            x = upsampler.forward(&x, height_width(skip));
        }
        x
    }
}

fn load_attentions(
    section: &Section,
    config: &UNetConfig,
    stage: &Stage,
    count: usize,
) -> Result<Vec<Transformer2DModel>, WeightsError> {
    let Some(attention) = stage.attention else {
        return Ok(Vec::new());
    };
    let load = |layer| Transformer2DModel::load(&section.at("attentions").at(layer), config, stage.channels, attention);
    (0..count).map(load).collect()
}
