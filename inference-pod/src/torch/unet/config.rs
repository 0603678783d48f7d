//! What `unet/config.json` says, as stages on the way down and up. Refuses by name what this `UNet` does not compute.

use easel_checkpoints::Files;
use serde_json::json;

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::embeddings::Timesteps;
use crate::torch::resnet::ResnetConfig;

#[derive(Debug)]
pub(super) struct UNetConfig {
    pub(super) in_channels: i64,
    pub(super) out_channels: i64,
    pub(super) down: Vec<Stage>,
    pub(super) mid: Stage,
    /// In the order of `up_blocks`: from the coarsest to the finest.
    pub(super) up: Vec<Stage>,
    pub(super) groups: i64,
    pub(super) eps: f64,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f64,
    pub(super) use_linear_projection: bool,
    pub(super) addition: Option<AdditionConfig>,
}

/// `text_time`: what is added to the time embedding.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdditionConfig {
    /// Of each of the six sizes.
    pub(super) time_id_channels: i64,
    /// Of sizes and pooled text together.
    pub(super) channels: i64,
}

/// One resolution.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) channels: i64,
    /// Residual blocks.
    pub(super) layers: usize,
    pub(super) attention: Option<AttentionConfig>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionConfig {
    pub(super) heads: i64,
    /// Transformer blocks after each residual block.
    pub(super) layers: usize,
    pub(super) text_channels: i64,
}

impl UNetConfig {
    /// `adds`: whether the pipeline has pooled text and sizes to tell.
    pub(super) fn read(checkpoint: &Files, adds: bool) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "unet/config.json")?;
        let addition = addition(&mut config, adds)?;
        let (down, mid, up) = stages(&mut config)?;
        let read = Self {
            in_channels: config.take_or("in_channels", 4)?,
            out_channels: config.take_or("out_channels", 4)?,
            down,
            mid,
            up,
            groups: config.take_or("norm_num_groups", 32)?,
            eps: config.take_or("norm_eps", 1e-5)?,
            flip_sin_to_cos: config.take_or("flip_sin_to_cos", true)?,
            freq_shift: config.take_or("freq_shift", 0.0)?,
            use_linear_projection: config.take_or("use_linear_projection", false)?,
            addition,
        };
        refuse_the_rest(config)?;
        Ok(read)
    }

    pub(super) fn first_channels(&self) -> i64 {
        self.down[0].channels
    }

    /// diffusers 0.42.1, `unet_2d_condition.py`, `_set_time_proj`.
    pub(super) fn time_channels(&self) -> i64 {
        self.first_channels() * 4
    }

    pub(super) fn sinusoid(&self, channels: i64) -> Timesteps {
        Timesteps { channels, flip_sin_to_cos: self.flip_sin_to_cos, freq_shift: self.freq_shift }
    }

    pub(super) fn text_channels(&self) -> i64 {
        self.mid.attention.map_or(0, |attention| attention.text_channels)
    }

    pub(super) fn resnet(&self) -> ResnetConfig {
        ResnetConfig { groups: self.groups, eps: self.eps, time_channels: Some(self.time_channels()) }
    }
}

/// A `UNet` that expects what its pipeline does not tell, or the reverse, is refused.
fn addition(config: &mut Config, adds: bool) -> Result<Option<AdditionConfig>, LoadError> {
    let kind: Option<String> = config.take("addition_embed_type")?;
    match (kind.as_deref(), adds) {
        (None, false) => Ok(None),
        (Some("text_time"), true) => Ok(Some(AdditionConfig {
            time_id_channels: config.need("addition_time_embed_dim")?,
            channels: config.need("projection_class_embeddings_input_dim")?,
        })),
        (None, true) => Err(config.unsupported("addition_embed_type", format_args!("null"))),
        (Some(kind), _) => Err(config.unsupported("addition_embed_type", kind)),
    }
}

fn stages(config: &mut Config) -> Result<(Vec<Stage>, Stage, Vec<Stage>), LoadError> {
    let channels: Vec<i64> = config.need("block_out_channels")?;
    let count = channels.len();
    let layers = config.take_each("layers_per_block", 2, count)?;
    // Named by mistake in diffusers, and kept for its checkpoints: this is the number of heads
    // (unet_2d_condition.py: `num_attention_heads = num_attention_heads or attention_head_dim`).
    let heads = config.take_each("attention_head_dim", 8, count)?;
    let transformer_layers = config.take_each("transformer_layers_per_block", 1, count)?;
    let text_channels = config.take_each("cross_attention_dim", 1280, count)?;
    let down_types: Vec<String> = config.need("down_block_types")?;
    let up_types: Vec<String> = config.need("up_block_types")?;
    let mid_type = config.take_or("mid_block_type", "UNetMidBlock2DCrossAttn".to_owned())?;
    if count == 0 || down_types.len() != count || up_types.len() != count {
        return Err(config
            .unsupported("block_out_channels", format_args!("{channels:?} beside {down_types:?} and {up_types:?}")));
    }
    if mid_type != "UNetMidBlock2DCrossAttn" {
        return Err(config.unsupported("mid_block_type", &mid_type));
    }
    let attention = |stage: usize| AttentionConfig {
        heads: heads[stage],
        layers: transformer_layers[stage],
        text_channels: text_channels[stage],
    };
    let stage = |stage: usize, more: usize, has_attention: bool| Stage {
        channels: channels[stage],
        layers: layers[stage] + more,
        attention: has_attention.then(|| attention(stage)),
    };
    let mut down = Vec::new();
    let mut up = Vec::new();
    for index in 0..count {
        down.push(stage(index, 0, has_attention(config, "down_block_types", "Down", &down_types[index])?));
        // Going up, the stages come in reverse and have one residual block more.
        up.push(stage(count - 1 - index, 1, has_attention(config, "up_block_types", "Up", &up_types[index])?));
    }
    Ok((down, stage(count - 1, 0, true), up))
}

fn has_attention(config: &Config, key: &str, direction: &str, class: &str) -> Result<bool, LoadError> {
    match class.strip_suffix(&format!("{direction}Block2D")) {
        Some("CrossAttn") => Ok(true),
        Some("") => Ok(false),
        _ => Err(config.unsupported(key, class)),
    }
}

fn refuse_the_rest(mut config: Config) -> Result<(), LoadError> {
    // upcast_attention: see `layers::attend`. sample_size is a default of the caller's; dropout is for training;
    // the other two belong to an addition_embed_type, without which they mean nothing.
    config.ignore(&[
        "sample_size",
        "dropout",
        "upcast_attention",
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
    ]);
    let act: String = config.take_or("act_fn", "silu".to_owned())?;
    if !["silu", "swish"].contains(&act.as_str()) {
        return Err(config.unsupported("act_fn", &act));
    }
    config.finish(&[
        ("attention_type", json!("default")),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("downsample_padding", json!(1)),
        ("mid_block_scale_factor", json!(1)),
        ("resnet_out_scale_factor", json!(1)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_embedding_type", json!("positional")),
    ])
}
