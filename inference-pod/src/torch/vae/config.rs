//! What `vae/config.json` says. Refuses by name what it does not compute.

use easel_checkpoints::Files;
use serde_json::json;

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::resnet::ResnetConfig;
use crate::torch::vae::VaeUse;

/// Of values on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    FitsF16,
    NeedsF32,
}

#[derive(Debug)]
pub(super) struct VaeConfig {
    pub(super) latent_channels: i64,
    pub(super) out_channels: i64,
    /// From the finest stage to the coarsest.
    pub(super) channels: Vec<i64>,
    pub(super) layers_per_block: usize,
    pub(super) groups: i64,
    pub(super) scaling_factor: f64,
    pub(super) shift_factor: f64,
    pub(super) range: Range,
    pub(super) use_quant_conv: bool,
    pub(super) use_post_quant_conv: bool,
    pub(super) mid_block_add_attention: bool,
}

impl VaeConfig {
    pub(super) fn read(checkpoint: &Files, wanted: VaeUse) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "vae/config.json")?;
        for (key, class) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let types = config.take_or(key, vec![class.to_owned()])?;
            if let Some(other) = types.iter().find(|name| *name != class) {
                return Err(config.unsupported(key, other));
            }
        }
        let overflows = config.take_or("force_upcast", true)?;
        let range = if overflows && wanted.upcasts { Range::NeedsF32 } else { Range::FitsF16 };
        let read = Self {
            latent_channels: config.take_or("latent_channels", 4)?,
            out_channels: config.take_or("out_channels", 3)?,
            channels: config.take_or("block_out_channels", vec![64])?,
            layers_per_block: config.take_or("layers_per_block", 1)?,
            groups: config.take_or("norm_num_groups", 32)?,
            scaling_factor: config.take_or("scaling_factor", 0.18215)?,
            // A pipeline that shifts fails without one in diffusers too.
            shift_factor: if wanted.shifts { config.need("shift_factor")? } else { 0.0 },
            range,
            use_quant_conv: config.take_or("use_quant_conv", true)?,
            use_post_quant_conv: config.take_or("use_post_quant_conv", true)?,
            mid_block_add_attention: config.take_or("mid_block_add_attention", true)?,
        };
        if read.channels.is_empty() || read.out_channels != 3 {
            return Err(config.unsupported("out_channels", read.out_channels));
        }
        config.ignore(&["sample_size"]);
        config.finish(&[("act_fn", json!("silu")), ("in_channels", json!(3))])?;
        Ok(read)
    }

    pub(super) fn factor(&self) -> u32 {
        1 << (self.channels.len() - 1)
    }

    /// Channels that the last stage of the decoder is given, at the picture's full size.
    pub(super) fn widest(&self) -> i64 {
        self.channels.get(1).copied().unwrap_or(self.channels[0])
    }

    /// diffusers 0.42.1, `vae.py`: the eps is fixed in the decoder.
    pub(super) fn resnet(&self) -> ResnetConfig {
        ResnetConfig { groups: self.groups, eps: 1e-6, time_channels: None }
    }
}
