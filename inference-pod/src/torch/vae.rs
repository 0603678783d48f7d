//! `AutoencoderKL`: latents in, picture out, and back for models that edit. Without them the encoder is not read.
//! Transcribed from diffusers 0.42.1, `models/autoencoders/vae.py`; fields are named as checkpoint keys.

mod blocks;
mod config;
mod encoder;
mod tiles;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use self::blocks::{MidBlock, UpDecoderBlock};
use self::config::{Range, VaeConfig};
use self::encoder::Encoder;
use self::tiles::{Scale, in_tiles};
use super::device::Placement;
use super::layers::{Conv2d, GroupNorm};
use super::resnet::height_width;
use super::weights::{Section, Tensors, Weights, WeightsError};
use crate::pipeline::{DecodeMemory, LoadError};

const PART: &str = "vae";

/// What a pipeline does with its VAE; diffusers decides it in each pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub struct VaeUse {
    pub encoder: EncoderUse,
    /// Whether `force_upcast` means something: decode in f32 where f16 would overflow.
    pub upcasts: bool,
    /// Whether `shift_factor` is added; where not, a VAE that has one is refused.
    pub shifts: bool,
}

/// Whether pictures are encoded too. A VAE's encoder is about two thirds as large as its decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderUse {
    #[default]
    Never,
    /// Where the checkpoint has one.
    IfThere,
    Needed,
}

#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Option<Encoder>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    scaling_factor: f64,
    shift_factor: f64,
    latent_channels: i64,
    factor: u32,
    widest: i64,
    placement: Placement,
    tensors: Tensors,
}

impl AutoencoderKl {
    /// Reads the decoder in `vae/` of a checkpoint.
    pub fn load(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        Self::load_for(checkpoint, placement, VaeUse::default())
    }

    /// Reads both halves.
    pub fn load_with_encoder(checkpoint: &Files, placement: Placement) -> Result<Self, LoadError> {
        Self::load_for(checkpoint, placement, VaeUse { encoder: EncoderUse::Needed, ..VaeUse::default() })
    }

    pub fn load_for(checkpoint: &Files, placement: Placement, wanted: VaeUse) -> Result<Self, LoadError> {
        let config = VaeConfig::read(checkpoint, wanted)?;
        let placement = match config.range {
            Range::FitsF16 => placement,
            Range::NeedsF32 => placement.without_f16(),
        };
        let stem = "diffusion_pytorch_model";
        let weights = Weights::open(checkpoint, PART, stem, placement).map_err(|error| error.of(PART))?;
        let encodes = match wanted.encoder {
            EncoderUse::Never => false,
            EncoderUse::IfThere => weights.has("encoder.conv_in.weight"),
            EncoderUse::Needed => true,
        };
        Self::build(&config, &weights, placement, encodes).map_err(|error| error.of(PART))
    }

    fn build(config: &VaeConfig, weights: &Weights, placement: Placement, encodes: bool) -> Result<Self, WeightsError> {
        let root = weights.root();
        let channels = config.latent_channels;
        let post_quant_conv = || Conv2d::load(&root.at("post_quant_conv"), channels, channels, 1);
        let mut model = Self {
            encoder: encodes.then(|| Encoder::load(&root, config)).transpose()?,
            post_quant_conv: config.use_post_quant_conv.then(post_quant_conv).transpose()?,
            decoder: Decoder::load(&root.at("decoder"), config)?,
            scaling_factor: config.scaling_factor,
            shift_factor: config.shift_factor,
            latent_channels: channels,
            factor: config.factor(),
            widest: config.widest(),
            placement,
            tensors: Tensors::default(),
        };
        weights.finish(if encodes { &[] } else { &["encoder.", "quant_conv."] })?;
        model.tensors = weights.tensors();
        Ok(model)
    }

    /// Pixels on a side for each latent.
    pub fn factor(&self) -> u32 {
        self.factor
    }

    pub fn latent_channels(&self) -> i64 {
        self.latent_channels
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Measured with four widths of channels at 512 by 512: 4.1 to 5.2 copies of the widest values.
    pub fn decode_memory(&self) -> DecodeMemory {
        let pixels = u64::from(self.factor).pow(2);
        let value = self.widest.unsigned_abs() * self.placement.kind.elt_size_in_bytes() as u64;
        DecodeMemory {
            per_position: pixels * value * 21 / 4,
            most_positions: tiles::WHOLE_PIXELS.unsigned_abs() / pixels,
        }
    }

    /// Whether pictures can be encoded too.
    pub fn encodes(&self) -> bool {
        self.encoder.is_some()
    }

    /// `[batch, 3, h·factor, w·factor]` of -1..1 → the likeliest latents `[batch, latent_channels, h, w]` of f32, not
    /// scaled: what `vae.encode(x).latent_dist.mode()` gives. `None` without an encoder.
    pub fn encode(&self, pixels: &Tensor) -> Option<Tensor> {
        Some(self.moments(pixels)?.narrow(1, 0, self.latent_channels).contiguous())
    }

    /// The same, drawn by `noise` `[batch, latent_channels, h, w]` from what the picture may mean, and scaled as the
    /// denoiser has latents. `DiagonalGaussianDistribution.sample` of diffusers 0.42.1, `models/autoencoders/vae.py`,
    /// and `_encode_vae_image` of its inpainting pipelines.
    pub fn encode_sampled(&self, pixels: &Tensor, noise: &Tensor) -> Option<Tensor> {
        let halves = self.moments(pixels)?.chunk(2, 1);
        let (mean, logvar) = (&halves[0], halves[1].clamp(-30.0, 20.0));
        let sampled = mean + (logvar * 0.5).exp() * noise;
        Some(((sampled - self.shift_factor) * self.scaling_factor).contiguous())
    }

    /// `[batch, 2·latent_channels, h, w]` of f32: means, and behind them logarithms of variances.
    fn moments(&self, pixels: &Tensor) -> Option<Tensor> {
        let (height, width) = height_width(pixels);
        let factor = i64::from(self.factor);
        match tiles::sides(height / factor, width / factor, factor) {
            None => Some(self.encoder.as_ref()?.forward(&self.place(pixels)).to_kind(Kind::Float)),
            Some(sides) => self.moments_in_tiles(pixels, sides),
        }
    }

    /// The latents' means and logarithms of variances, of a picture in tiles of so many latents high and wide.
    pub fn moments_in_tiles(&self, pixels: &Tensor, sides: [i64; 2]) -> Option<Tensor> {
        let encoder = self.encoder.as_ref()?;
        let scale = Scale::Down(i64::from(self.factor));
        Some(in_tiles(&self.place(pixels), sides, scale, |tile| encoder.forward(tile)))
    }

    /// `[batch, latent_channels, h, w]` as the denoiser makes them → `[batch, 3, h·factor, w·factor]` of f32, about -1..1
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        let (height, width) = height_width(latents);
        match tiles::sides(height, width, i64::from(self.factor)) {
            None => self.decode_unscaled(&self.unscaled(latents)).to_kind(Kind::Float),
            Some(sides) => self.decode_in_tiles(latents, sides),
        }
    }

    /// [`Self::decode`] in tiles of so many latents high and wide, each a multiple of 4.
    pub fn decode_in_tiles(&self, latents: &Tensor, sides: [i64; 2]) -> Tensor {
        let scale = Scale::Up(i64::from(self.factor));
        in_tiles(&self.unscaled(latents), sides, scale, |tile| self.decode_unscaled(tile))
    }

    fn unscaled(&self, latents: &Tensor) -> Tensor {
        self.place(&(latents / self.scaling_factor + self.shift_factor))
    }

    fn decode_unscaled(&self, z: &Tensor) -> Tensor {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(z)),
            None => self.decoder.forward(z),
        }
    }

    fn place(&self, x: &Tensor) -> Tensor {
        let Placement { device, kind, .. } = self.placement;
        x.to_device(device).to_kind(kind)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpDecoderBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn load(section: &Section, config: &VaeConfig) -> Result<Self, WeightsError> {
        let (first, last) = (config.channels[0], config.channels[config.channels.len() - 1]);
        let resnet = config.resnet();
        let mut up_blocks = Vec::new();
        let mut input = last;
        for (index, &channels) in config.channels.iter().rev().enumerate() {
            let upsamples = index + 1 < config.channels.len();
            let block = section.at("up_blocks").at(index);
            up_blocks.push(UpDecoderBlock::load(&block, config, (input, channels), upsamples)?);
            input = channels;
        }
        Ok(Self {
            conv_in: Conv2d::load(&section.at("conv_in"), config.latent_channels, last, 3)?,
            mid_block: MidBlock::load(&section.at("mid_block"), config, last)?,
            up_blocks,
            conv_norm_out: GroupNorm::load(&section.at("conv_norm_out"), first, resnet.groups, resnet.eps)?,
            conv_out: Conv2d::load(&section.at("conv_out"), first, config.out_channels, 3)?,
        })
    }

    fn forward(&self, z: &Tensor) -> Tensor {
        let x = self.mid_block.forward(&self.conv_in.forward(z));
        let x = self.up_blocks.iter().fold(x, |x, block| block.forward(&x));
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu_())
    }
}
