//! Pixels as models compute them, and as bytes.
//! Transcribed from diffusers 0.42.1, `image_processor.py`; knows no model.

use tch::{Device, Kind, Tensor};

use super::guard::failed;
use crate::pipeline::{Mask, Picture, PipelineError};

/// NaN and infinity spread, and end as black pixels that nobody would take for an error.
pub(in crate::torch) fn all_finite(values: &Tensor) -> Result<(), PipelineError> {
    let finite = values.isfinite().all();
    if bool::try_from(finite).map_err(|error| failed("check the numbers", error))? {
        Ok(())
    } else {
        Err(PipelineError::NotFinite)
    }
}

/// `[1, 3, h, w]` of -1..1 → `[h][w][rgb]` of 0..255.
pub(super) fn to_bytes(pixels: &Tensor) -> Result<Vec<u8>, PipelineError> {
    let unit = (pixels / 2.0 + 0.5).clamp(0.0, 1.0);
    let bytes = (unit.squeeze_dim(0).permute([1, 2, 0]) * 255.0).round().to_kind(Kind::Uint8);
    Vec::try_from(bytes.to_device(Device::Cpu).flatten(0, -1).contiguous())
        .map_err(|error| failed("decode the picture", error))
}

/// `[h][w][rgb]` of 0..255 → `[1, 3, h, w]` of -1..1, in f32 on the CPU.
pub(super) fn from_bytes(picture: &Picture) -> Tensor {
    unit_from_bytes(picture) * 2.0 - 1.0
}

/// The same, of 0..1.
pub(super) fn unit_from_bytes(picture: &Picture) -> Tensor {
    let (height, width) = (i64::from(picture.size.height()), i64::from(picture.size.width()));
    let pixels = Tensor::from_slice(&picture.rgb).view([1, height, width, 3]).permute([0, 3, 1, 2]);
    pixels.to_kind(Kind::Float) / 255.0
}

/// `[1, 1, h, w]` of f32 on the CPU: 1 where the picture shall be drawn anew.
pub(super) fn from_mask(mask: &Mask) -> Tensor {
    let (height, width) = (i64::from(mask.size.height()), i64::from(mask.size.width()));
    Tensor::from_slice(&mask.edited).view([1, 1, height, width]).to_kind(Kind::Float)
}
