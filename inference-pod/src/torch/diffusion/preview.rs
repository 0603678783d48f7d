//! Pictures of unfinished latents without decoding them: a linear map from the latents around a place to its colour.
//! Fits the map to whatever a VAE decodes, once; knows no family and no sampler.

use easel_api::ImageSize;
use tch::{Device, Kind, Tensor};

use crate::torch::sampler::noise::Noise;
use crate::torch::vae::AutoencoderKl;

/// What is decoded to see which channel means which colour: latents of 8 x 8 positions, noise of four octaves. Decoders
/// smooth noise of single positions away, and pictures have areas of one colour and edges between them.
/// 64 x 8 x 8 samples are for at most 2 x 32 + 1 unknowns of a colour.
const SAMPLES: i64 = 64;
const SIDE: i64 = 8;
/// Positions on a side that have one value.
const OCTAVES: [i64; 4] = [8, 4, 2, 1];
/// Keeps the equations solvable where a channel is never used, and is too small to be seen.
const RIDGE: f64 = 1e-3;

/// `[2 · channels + 1, 3]` of f32 on the CPU: what each channel of a position, and the mean of each around it, add to red,
/// green and blue of -1..1, and the colour without any.
#[derive(Debug)]
pub(super) struct Colours(Tensor);

impl Colours {
    /// Least squares over latents that are always the same. Takes as long as decoding a picture of 4096 positions, which are
    /// 512x512 pixels for most.
    pub(super) fn fit(vae: &AutoencoderKl) -> Self {
        let latents = samples(vae.latent_channels());
        let pixels = vae.decode(&latents).to_device(Device::Cpu).clamp(-1.0, 1.0);
        let seen = rows(&pixels.adaptive_avg_pool2d([SIDE, SIDE])).to_kind(Kind::Double); // [positions, 3]
        let given = given(&latents).to_kind(Kind::Double); // [positions, 2 · channels + 1]
        let (count, columns) = (given.size()[0], given.size()[1]);
        let ridge = Tensor::eye(columns, (Kind::Double, Device::Cpu)) * (RIDGE * count as f64);
        let (square, right) = (given.tr().matmul(&given), given.tr().matmul(&seen));
        let fitted = Tensor::linalg_solve(&(square + ridge), &right, true); // [2 · channels + 1, 3]
        Self(vivid(&fitted, &given, &seen).to_kind(Kind::Float))
    }

    /// `[1, channels, h, w]` of f32 → `[1, 3, height, width]` of -1..1, smooth.
    pub(super) fn draw(&self, latents: &Tensor, size: ImageSize) -> Tensor {
        let (height, width) = (latents.size()[2], latents.size()[3]);
        let colours = given(&latents.to_device(Device::Cpu)).matmul(&self.0).clamp(-1.0, 1.0); // [h·w, 3]
        let small = colours.reshape([1, height, width, 3]).permute([0, 3, 1, 2]);
        small.upsample_bilinear2d([i64::from(size.height()), i64::from(size.width())], false, None, None)
    }
}

/// Least squares make everything paler that they can't explain. With the spread that was seen, about the mean.
fn vivid(fitted: &Tensor, given: &Tensor, seen: &Tensor) -> Tensor {
    let mean = seen.mean_dim([0].as_slice(), true, None); // [1, 3]
    let pale = given.matmul(fitted);
    let spread = |colours: &Tensor| (colours - &mean).norm();
    let gain = spread(seen) / spread(&pale).clamp_min(f64::EPSILON);
    // The last row is the colour without any channel.
    let (channels, colour) = (fitted.narrow(0, 0, fitted.size()[0] - 1), fitted.narrow(0, -1, 1));
    Tensor::cat(&[channels * &gain, (colour - &mean) * &gain + &mean], 0)
}

/// `[SAMPLES, channels, SIDE, SIDE]` of variance 1, as a denoiser's latents have about.
fn samples(channels: i64) -> Tensor {
    let octave = |(seed, block): (u64, i64)| {
        let (drawn, _) = Noise::new(seed).next(&[SAMPLES, channels, SIDE / block, SIDE / block]);
        drawn.upsample_nearest2d([SIDE, SIDE], None, None)
    };
    let sum: Tensor = (0..).zip(OCTAVES).map(octave).sum();
    sum / (OCTAVES.len() as f64).sqrt()
}

/// `[batch, channels, h, w]` → `[batch·h·w, 2 · channels + 1]`: the latents of each position, the means around it, and 1.
fn given(latents: &Tensor) -> Tensor {
    let around = latents.replication_pad2d([1, 1, 1, 1]).avg_pool2d([3, 3], [1, 1], [0, 0], false, true, None);
    let both = rows(&Tensor::cat(&[latents, &around], 1));
    let one = Tensor::ones([both.size()[0], 1], (both.kind(), both.device()));
    Tensor::cat(&[both, one], 1)
}

/// `[batch, channels, h, w]` → `[batch·h·w, channels]`
fn rows(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).reshape([-1, tensor.size()[1]])
}
