//! The residual block and the two ways to change resolution, which `UNet` and VAE share.
//! Transcribed from diffusers 0.42.1, `models/resnet.py`, `downsampling.py` and `upsampling.py`.

mod doubled;

use tch::{Device, Tensor};

use super::layers::{Conv2d, GroupNorm, Linear};
use super::weights::{Section, WeightsError};

#[derive(Debug)]
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

/// How all residual blocks of one model are built.
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    pub groups: i64,
    pub eps: f64,
    /// Channels of the time embedding; a VAE has none.
    pub time_channels: Option<i64>,
}

impl ResnetBlock2D {
    pub fn load(section: &Section, config: ResnetConfig, input: i64, output: i64) -> Result<Self, WeightsError> {
        let ResnetConfig { groups, eps, time_channels } = config;
        let shortcut = |input| Conv2d::load(&section.at("conv_shortcut"), input, output, 1);
        Ok(Self {
            norm1: GroupNorm::load(&section.at("norm1"), input, groups, eps)?,
            conv1: Conv2d::load(&section.at("conv1"), input, output, 3)?,
            time_emb_proj: time_channels
                .map(|channels| Linear::load(&section.at("time_emb_proj"), channels, output))
                .transpose()?,
            norm2: GroupNorm::load(&section.at("norm2"), output, groups, eps)?,
            conv2: Conv2d::load(&section.at("conv2"), output, output, 3)?,
            conv_shortcut: (input != output).then(|| shortcut(input)).transpose()?,
        })
    }

    /// `[batch, input, h, w]` and time embedding `[batch, time_channels]` → `[batch, output, h, w]`
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        // In place where nobody else has it: these are the largest tensors of a model.
        let mut hidden = self.conv1.forward(&self.norm1.forward(x).silu_());
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            hidden += proj.forward(&time.silu()).unsqueeze(-1).unsqueeze(-1); // [batch, output, 1, 1]
        }
        let mut hidden = self.conv2.forward(&self.norm2.forward(&hidden).silu_());
        match &self.conv_shortcut {
            Some(conv) => hidden += conv.forward(x),
            None => hidden += x,
        }
        hidden
    }
}

/// Halves height and width, rounding up.
#[derive(Debug)]
pub struct Downsample2D {
    conv: Conv2d,
}

impl Downsample2D {
    pub fn load(section: &Section, channels: i64) -> Result<Self, WeightsError> {
        Ok(Self { conv: Conv2d::load_with_stride(&section.at("conv"), channels, channels, 3, 2)? })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(x)
    }
}

/// Repeats pixels up to a given size, then smooths.
#[derive(Debug)]
pub struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub fn load(section: &Section, channels: i64) -> Result<Self, WeightsError> {
        Ok(Self { conv: Conv2d::load(&section.at("conv"), channels, channels, 3)? })
    }

    /// `[batch, channels, _, _]` → `[batch, channels, h, w]`
    pub fn forward(&self, x: &Tensor, (h, w): (i64, i64)) -> Tensor {
        let (height, width) = height_width(x);
        let repeated = || x.upsample_nearest2d([h, w], None, None);
        if (2 * height, 2 * width) == (h, w) && doubled::pays(x) {
            return self.conv.computed(|weight, bias| doubled::convolved(x, weight, bias), repeated);
        }
        self.conv.forward(&repeated())
    }
}

/// `[batch, h·w, channels]` → `[batch, channels, h, w]`. On a CPU it is the same memory, with channels last as convolutions
/// have them there; a GPU's convolutions and norms expect them first.
pub fn pixels_of(tokens: &Tensor, (h, w): (i64, i64)) -> Tensor {
    let pixels = tokens.transpose(1, 2).unflatten(2, [h, w]);
    if pixels.device() == Device::Cpu { pixels } else { pixels.contiguous() }
}

/// Height and width of `[batch, channels, h, w]`.
pub fn height_width(x: &Tensor) -> (i64, i64) {
    let size = x.size();
    (size[2], size[3])
}
