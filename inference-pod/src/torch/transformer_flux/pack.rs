//! Latents as a sequence of squares, and back.
//! Transcribed from diffusers 0.42.1, `pipelines/flux/pipeline_flux.py`, `_pack_latents` and `_unpack_latents`.

use tch::Tensor;

use crate::torch::resnet::height_width;

/// Latents on a side of a square.
pub(super) const PATCH: i64 = 2;

/// `[batch, channels, h, w]` → `[batch, h/2·w/2, channels·4]`
pub(super) fn pack(latents: &Tensor) -> Tensor {
    let (batch, channels, (height, width)) = (latents.size()[0], latents.size()[1], height_width(latents));
    let (rows, columns) = (height / PATCH, width / PATCH);
    latents.view([batch, channels, rows, PATCH, columns, PATCH]).permute([0, 2, 4, 1, 3, 5]).reshape([
        batch,
        rows * columns,
        channels * PATCH * PATCH,
    ])
}

/// `[batch, h/2·w/2, channels·4]` → `[batch, channels, h, w]`
pub(super) fn unpack(packed: &Tensor, height: i64, width: i64) -> Tensor {
    let (batch, channels) = (packed.size()[0], packed.size()[2] / (PATCH * PATCH));
    packed
        .view([batch, height / PATCH, width / PATCH, channels, PATCH, PATCH])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([batch, channels, height, width])
}
