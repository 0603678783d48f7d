//! `SRVGGNetCompact` of Real-ESRGAN: a picture in, the same picture four times as wide and high out.
//! Transcribed from Real-ESRGAN 0.3.0, `archs/srvgg_arch.py`; knows one network and its weights, not who asks.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use easel_api::images::UPSCALE_FACTOR;
use easel_checkpoints::Files;
use tch::{Device, Kind, Tensor};

use super::device::Placement;
use super::diffusion::guard::{failed, guarded};
use super::diffusion::pixels::all_finite;
use super::layers::Conv2d;
use super::weights::{Section, Weights, WeightsError};
use crate::pipeline::{LoadError, Picture, PipelineError};
use crate::upscale::{Upscale, larger};

const PART: &str = "upscale";
/// Of the published weights `animevideov3`: convolutions between the first and the last, and their channels.
const HIDDEN: usize = 16;
const CHANNELS: i64 = 64;
const FACTOR: i64 = UPSCALE_FACTOR as i64;
const STEP: &str = "upscale the picture";
/// Pixels on a side that are upscaled at once, without those around them: 64 channels of them are 8 MiB.
const TILE: i64 = 128;
/// How far a pixel is seen: 18 convolutions of 3 x 3.
const REACH: i64 = 18;

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
        let output = 3 * FACTOR * FACTOR;
        convolutions.push(Conv2d::load(&body.at(2 * (HIDDEN + 1)), CHANNELS, output, 3)?);
        Ok(Self { convolutions, slopes, placement })
    }

    /// `[batch, 3, h, w]` of 0..1 → `[batch, 3, 4·h, 4·w]` of f32, about 0..1
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let Placement { device, kind, .. } = self.placement;
        let pixels = pixels.to_device(device).to_kind(kind);
        let mut x = pixels.shallow_clone();
        for (layer, convolution) in self.convolutions.iter().enumerate() {
            x = convolution.forward(&x);
            if let Some(slope) = self.slopes.get(layer) {
                x = x.prelu(slope);
            }
        }
        let size = [FACTOR * pixels.size()[2], FACTOR * pixels.size()[3]];
        let detail = x.pixel_shuffle(FACTOR); // [batch, 48, h, w] → [batch, 3, 4·h, 4·w]
        (detail + pixels.upsample_nearest2d(size, None, None)).to_kind(Kind::Float)
    }
}

/// Tensors may move between threads, but not be shared; one picture at a time also bounds the memory.
#[derive(Debug)]
pub struct Upscaler(Mutex<SrvggNetCompact>);

impl Upscaler {
    /// Reads `model.safetensors` of a folder.
    pub fn load(folder: &Path, placement: Placement) -> Result<Self, LoadError> {
        SrvggNetCompact::load(folder, placement).map(|network| Self(Mutex::new(network)))
    }
}

impl Upscale for Upscaler {
    fn upscale(&self, picture: &Picture) -> Result<Picture, PipelineError> {
        let (width, height) = (i64::from(picture.size.width()), i64::from(picture.size.height()));
        let size = larger(picture.size)?;
        let network = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guarded(STEP, || {
            let pixels = Tensor::from_slice(&picture.rgb).view([height, width, 3]).permute([2, 0, 1]).unsqueeze(0);
            let large = Tensor::zeros([3, FACTOR * height, FACTOR * width], (Kind::Uint8, Device::Cpu));
            for (top, left) in tiles(height, width) {
                let (found, rows, columns) = tile(&network, &pixels, (top, left))?;
                let place = large.narrow(1, FACTOR * top, FACTOR * rows);
                place.narrow(2, FACTOR * left, FACTOR * columns).copy_(&found);
            }
            let rgb = Vec::try_from(large.permute([1, 2, 0]).contiguous().flatten(0, -1));
            Ok(Picture { size, rgb: rgb.map_err(|error| failed(STEP, error))? })
        })
    }
}

/// Where the tiles of a picture begin.
fn tiles(height: i64, width: i64) -> impl Iterator<Item = (i64, i64)> {
    let starts = |side: i64| (0..side).step_by(TILE as usize);
    starts(height).flat_map(move |top| starts(width).map(move |left| (top, left)))
}

/// `pixels` `[1, 3, h, w]` of 0..255 → `[3, 4·rows, 4·columns]` of bytes, and the tile's rows and columns. It is seen with
/// all that reaches it, so no seam is left.
fn tile(
    network: &SrvggNetCompact,
    pixels: &Tensor,
    (top, left): (i64, i64),
) -> Result<(Tensor, i64, i64), PipelineError> {
    let seen = |dimension: i64, start: i64| {
        let side = pixels.size()[dimension as usize];
        let (from, length) = ((start - REACH).max(0), TILE.min(side - start));
        (from, (start + length + REACH).min(side) - from, length)
    };
    let ((above, seen_rows, rows), (before, seen_columns, columns)) = (seen(2, top), seen(3, left));
    let around = pixels.narrow(2, above, seen_rows).narrow(3, before, seen_columns).to_kind(Kind::Float) / 255.0;
    let found = network.forward(&around);
    let found =
        found.narrow(2, FACTOR * (top - above), FACTOR * rows).narrow(3, FACTOR * (left - before), FACTOR * columns);
    all_finite(&found)?;
    let bytes = (found.clamp(0.0, 1.0) * 255.0).round().squeeze_dim(0).to_kind(Kind::Uint8);
    Ok((bytes.to_device(Device::Cpu), rows, columns))
}
