//! What a T5's `config.json` says.

use easel_checkpoints::Files;
use serde::Deserialize;

use crate::pipeline::LoadError;
use crate::torch::config::Config;

#[derive(Debug)]
pub(super) struct T5Config {
    pub(super) vocab_size: i64,
    pub(super) d_model: i64,
    /// Of one head.
    pub(super) d_kv: i64,
    pub(super) d_ff: i64,
    pub(super) num_layers: usize,
    pub(super) num_heads: i64,
    pub(super) relative_attention_num_buckets: i64,
    pub(super) relative_attention_max_distance: i64,
    pub(super) layer_norm_epsilon: f64,
    pub(super) feed_forward_proj: FeedForwardProj,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FeedForwardProj {
    /// T5 as first published.
    Relu,
    /// T5 1.1, with `gelu_new`.
    GatedGelu,
}

impl T5Config {
    /// transformers writes defaults of its base class into every config, so unknown options are not refused here;
    /// unknown keys among the weights are.
    pub(super) fn read(checkpoint: &Files, part: &str) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, &format!("{part}/config.json"))?;
        Ok(Self {
            vocab_size: config.take_or("vocab_size", 32128)?,
            d_model: config.take_or("d_model", 512)?,
            d_kv: config.take_or("d_kv", 64)?,
            d_ff: config.take_or("d_ff", 2048)?,
            num_layers: config.take_or("num_layers", 6)?,
            num_heads: config.take_or("num_heads", 8)?,
            relative_attention_num_buckets: config.take_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: config.take_or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: config.take_or("layer_norm_epsilon", 1e-6)?,
            feed_forward_proj: config.take_or("feed_forward_proj", FeedForwardProj::Relu)?,
        })
    }
}
