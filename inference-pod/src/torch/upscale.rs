//! `SRVGGNetCompact` of Real-ESRGAN: a picture in, the same picture four times as wide and high out.
//! Transcribed from Real-ESRGAN 0.3.0, `archs/srvgg_arch.py`; knows one network and its weights, not who asks.

use std::path::Path;

use easel_api::ImageSize;
use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use super::device::Placement;
use super::diffusion::guard::{failed, guarded};
use super::layers::Conv2d;
use super::weights::{Section, Weights, WeightsError};
use crate::pipeline::{LoadError, Picture, PipelineError};

const PART: &str = "upscale";
/// Of the published weights `animevideov3`: convolutions between the first and the last, and their channels.
const HIDDEN: usize = 16;
const CHANNELS: i64 = 64;
const FACTOR: u32 = 4;

#[derive(Debug)]
pub struct SrvggNetCompact {
    /// `body.0`, `body.2`, …: each but the last is followed by the `PReLU` of the next number.
    convolutions: Vec<Conv2d>,
    /// `body.1`, `body.3`, …: the slope below zero, for each channel.
    slopes: Vec<Tensor>,
    placement: Placement,
}

impl SrvggNetCompact {
    /// Reads `model.safetensors` of a folder.
    pub fn load(folder: &Path, placement: Placement) -> Result<Self, LoadError> {
        let files = Files::trusted(folder)
            .map_err(|error| LoadError::Failed { part: PART.to_owned(), source: Box::new(error) })?;
        let weights = Weights::open(&files, "", "model", placement).map_err(|error| error.of(PART))?;
        let model = Self::build(&weights.root().at("body"), placement).map_err(|error| error.of(PART))?;
        weights.finish(&[]).map_err(|error| error.of(PART))?;
        Ok(model)
    }

    fn build(body: &Section, placement: Placement) -> Result<Self, WeightsError> {
        let (mut convolutions, mut slopes) = (Vec::new(), Vec::new());
        for layer in 0..=HIDDEN {
            let input = if layer == 0 { 3 } else { CHANNELS };
            convolutions.push(Conv2d::load(&body.at(2 * layer), input, CHANNELS, 3)?);
            slopes.push(body.at(2 * layer + 1).tensor("weight", &[CHANNELS])?);
        }
        let output = 3 * i64::from(FACTOR * FACTOR);
        convolutions.push(Conv2d::load(&body.at(2 * (HIDDEN + 1)), CHANNELS, output, 3)?);
        Ok(Self { convolutions, slopes, placement })
    }

    /// `[batch, 3, h, w]` of 0..1 → `[batch, 3, 4·h, 4·w]` of f32, about 0..1
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let Placement { device, kind } = self.placement;
        let pixels = pixels.to_device(device).to_kind(kind);
        let mut x = pixels.shallow_clone();
        for (layer, convolution) in self.convolutions.iter().enumerate() {
            x = convolution.forward(&x);
            if let Some(slope) = self.slopes.get(layer) {
                x = x.prelu(slope);
            }
        }
        let factor = i64::from(FACTOR);
        let size = [factor * pixels.size()[2], factor * pixels.size()[3]];
        let detail = x.pixel_shuffle(factor); // [batch, 48, h, w] → [batch, 3, 4·h, 4·w]
        (detail + pixels.upsample_nearest2d(size, None, None)).to_kind(Kind::Float)
    }

    pub fn upscale(&self, picture: &Picture) -> Result<Picture, PipelineError> {
        let (width, height) = (picture.size.width(), picture.size.height());
        let size = ImageSize::new(FACTOR * width, FACTOR * height)
            .map_err(|error| PipelineError::Unsupported(format!("four times {}: {error}", picture.size)))?;
        guarded("upscale the picture", || {
            let pixels = Tensor::from_slice(&picture.rgb).view([1, i64::from(height), i64::from(width), 3]);
            let found = self.forward(&(pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0));
            super::diffusion::pixels::all_finite(&found)?;
            let bytes = (found.clamp(0.0, 1.0) * 255.0).round().squeeze_dim(0).permute([1, 2, 0]); // [h, w, 3]
            let bytes = bytes.to_kind(Kind::Uint8).to_device(tch::Device::Cpu).contiguous().flatten(0, -1);
            let rgb = Vec::try_from(bytes).map_err(|error| failed("upscale the picture", error))?;
            Ok(Picture { size, rgb })
        })
    }
}
