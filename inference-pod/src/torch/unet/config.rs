//! What `unet/config.json` says, as stages on the way down and up, and what a `ControlNet`'s says in the same words.
//! Refuses by name what neither computes.

use easel_checkpoints::Files;
use serde_json::json;

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::embeddings::Timesteps;
use crate::torch::resnet::ResnetConfig;

/// As far as the middle, and for all blocks.
#[derive(Debug)]
pub(in crate::torch) struct UNetConfig {
    pub(in crate::torch) in_channels: i64,
    pub(super) down: Vec<Stage>,
    pub(super) mid: Stage,
    pub(super) groups: i64,
    pub(super) eps: f64,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f64,
    pub(super) use_linear_projection: bool,
    pub(super) addition: Option<AdditionConfig>,
}

/// From the middle on.
#[derive(Debug)]
pub(super) struct WayUp {
    pub(super) out_channels: i64,
    /// In the order of `up_blocks`: from the coarsest to the finest.
    pub(super) up: Vec<Stage>,
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
    /// Of `unet/`. `adds`: whether the pipeline has pooled text and sizes to tell.
    pub(super) fn read(checkpoint: &Files, adds: bool) -> Result<(Self, WayUp), LoadError> {
        let mut config = Config::read(checkpoint, "unet/config.json")?;
        let stages = stages(&mut config)?;
        // Going up, the stages come in reverse and have one residual block more.
        let up = stages.iter().rev().map(|stage| Stage { layers: stage.layers + 1, ..stage.clone() }).collect();
        let way_up = WayUp {
            out_channels: config.take_or("out_channels", 4)?,
            up: typed(&mut config, "up_block_types", "Up", up)?,
        };
        let read = Self::take(&mut config, stages, adds)?;
        refuse_the_rest(config)?;
        Ok((read, way_up))
    }

    /// Of another model's file, which has no way up. Refuses what is left of it.
    pub(in crate::torch) fn read_the_way_down(mut config: Config, adds: bool) -> Result<Self, LoadError> {
        let stages = stages(&mut config)?;
        let read = Self::take(&mut config, stages, adds)?;
        refuse_the_rest(config)?;
        Ok(read)
    }

    fn take(config: &mut Config, stages: Vec<Stage>, adds: bool) -> Result<Self, LoadError> {
        let mid_type = config.take_or("mid_block_type", "UNetMidBlock2DCrossAttn".to_owned())?;
        if mid_type != "UNetMidBlock2DCrossAttn" {
            return Err(config.unsupported("mid_block_type", &mid_type));
        }
        Ok(Self {
            in_channels: config.take_or("in_channels", 4)?,
            mid: stages[stages.len() - 1].clone(),
            down: typed(config, "down_block_types", "Down", stages)?,
            groups: config.take_or("norm_num_groups", 32)?,
            eps: config.take_or("norm_eps", 1e-5)?,
            flip_sin_to_cos: config.take_or("flip_sin_to_cos", true)?,
            freq_shift: config.take_or("freq_shift", 0.0)?,
            use_linear_projection: config.take_or("use_linear_projection", false)?,
            addition: addition(config, adds)?,
        })
    }

    pub(in crate::torch) fn first_channels(&self) -> i64 {
        self.down[0].channels
    }

    /// Of what the way down leaves for the way up: one skip at first, one of each residual block, one of each halving.
    pub(super) fn skip_channels(&self) -> Vec<i64> {
        let last = self.down.len() - 1;
        let of_stage = |(index, stage): (usize, &Stage)| {
            std::iter::repeat_n(stage.channels, stage.layers + usize::from(index < last))
        };
        [self.first_channels()].into_iter().chain(self.down.iter().enumerate().flat_map(of_stage)).collect()
    }

    pub(in crate::torch) fn mid_channels(&self) -> i64 {
        self.mid.channels
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

/// At least one, from the finest to the coarsest, each as if it had attention.
fn stages(config: &mut Config) -> Result<Vec<Stage>, LoadError> {
    let channels: Vec<i64> = config.need("block_out_channels")?;
    let count = channels.len();
    let layers = config.take_each("layers_per_block", 2, count)?;
    // Named by mistake in diffusers, and kept for its checkpoints: this is the number of heads
    // (unet_2d_condition.py: `num_attention_heads = num_attention_heads or attention_head_dim`).
    let heads = config.take_each("attention_head_dim", 8, count)?;
    let transformer_layers = config.take_each("transformer_layers_per_block", 1, count)?;
    let text_channels = config.take_each("cross_attention_dim", 1280, count)?;
    if count == 0 {
        return Err(config.unsupported("block_out_channels", &channels));
    }
    let attention = |stage: usize| AttentionConfig {
        heads: heads[stage],
        layers: transformer_layers[stage],
        text_channels: text_channels[stage],
    };
    let stage =
        |stage: usize| Stage { channels: channels[stage], layers: layers[stage], attention: Some(attention(stage)) };
    Ok((0..count).map(stage).collect())
}

/// The stages as the classes under `key` name them, with attention or without.
fn typed(config: &mut Config, key: &str, direction: &str, stages: Vec<Stage>) -> Result<Vec<Stage>, LoadError> {
    let classes: Vec<String> = config.need(key)?;
    if classes.len() != stages.len() {
        return Err(config.unsupported(key, format_args!("{classes:?} for {} stages", stages.len())));
    }
    let typed = |(stage, class): (Stage, &String)| {
        let has_attention = has_attention(config, key, direction, class)?;
        Ok(Stage { attention: stage.attention.filter(|_| has_attention), ..stage })
    };
    stages.into_iter().zip(&classes).map(typed).collect()
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
