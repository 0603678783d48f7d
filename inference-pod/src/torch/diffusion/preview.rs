//! Pictures of unfinished latents without decoding them: a linear map from a latent's channels to its colour.
//! Fits the map to whatever a VAE decodes, once; knows no family and no sampler.

use easel_api::ImageSize;
use tch::{Device, Kind, Tensor};

use crate::torch::sampler::noise::Noise;
use crate::torch::vae::AutoencoderKl;

/// What is decoded to see which channel means which colour: so many latents, of so many blocks of one value on a side,
/// each of so many latent positions on a side. A decoder smooths noise of single positions away, and latents of one
/// value throughout are nothing that it has seen. 4 × 4 × 4 × 16 samples for at most 17 unknowns a colour.
const SAMPLES: i64 = 4;
const BLOCKS: i64 = 4;
const BLOCK: i64 = 4;
/// Keeps the equations solvable where a channel is never used, and is too small to be seen.
const RIDGE: f64 = 1e-5;

/// `[channels + 1, 3]` of f32 on the CPU: what each channel adds to red, green and blue of -1..1, and the colour without
/// any.
#[derive(Debug)]
pub(super) struct Colours(Tensor);

impl Colours {
    /// Least squares over latents that are always the same. Takes as long as decoding pictures of `SAMPLES` × 256
    /// latent positions.
    pub(super) fn fit(vae: &AutoencoderKl) -> Self {
        let channels = vae.latent_channels();
        let (blocks, _) = Noise::new(0).next(&[SAMPLES, channels, BLOCKS, BLOCKS]);
        let latents = blocks.upsample_nearest2d([BLOCKS * BLOCK, BLOCKS * BLOCK], None, None); // [samples, channels, 16, 16]
        let pixels = vae.decode(&latents).to_device(Device::Cpu).clamp(-1.0, 1.0);
        let seen = pixels.adaptive_avg_pool2d([BLOCKS * BLOCK, BLOCKS * BLOCK]); // [samples, 3, 16, 16]
        let rows =
            |tensor: &Tensor, columns: i64| tensor.permute([0, 2, 3, 1]).reshape([-1, columns]).to_kind(Kind::Double);
        let given = with_one(&rows(&latents, channels)); // [positions, channels + 1]
        let square = given.tr().matmul(&given); // [channels + 1, channels + 1]
        let ridge = Tensor::eye(channels + 1, (Kind::Double, Device::Cpu)) * (RIDGE * given.size()[0] as f64);
        let right = given.tr().matmul(&rows(&seen, 3)); // [channels + 1, 3]
        Self(Tensor::linalg_solve(&(square + ridge), &right, true).to_kind(Kind::Float))
    }

    /// `[1, channels, h, w]` of f32 → `[1, 3, height, width]` of -1..1, smooth.
    pub(super) fn draw(&self, latents: &Tensor, size: ImageSize) -> Tensor {
        let (channels, height, width) = (latents.size()[1], latents.size()[2], latents.size()[3]);
        let positions = latents.to_device(Device::Cpu).permute([0, 2, 3, 1]).reshape([-1, channels]);
        let colours = with_one(&positions).matmul(&self.0).clamp(-1.0, 1.0); // [h·w, 3]
        let small = colours.reshape([1, height, width, 3]).permute([0, 3, 1, 2]);
        small.upsample_bilinear2d([i64::from(size.height()), i64::from(size.width())], false, None, None)
    }
}

/// `[rows, columns]` → `[rows, columns + 1]`: the last is 1, for what does not depend on the others.
fn with_one(rows: &Tensor) -> Tensor {
    let one = Tensor::ones([rows.size()[0], 1], (rows.kind(), rows.device()));
    Tensor::cat(&[rows, &one], 1)
}
