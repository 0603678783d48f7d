//! How much a token attends to another because of their distance: near ones have a number each, far ones share.
//! Transcribed from transformers 5.23.0, `models/t5/modeling_t5.py`, `compute_bias` and `_relative_position_bucket`.

use tch::{Device, Kind, Tensor};

use super::config::T5Config;
use crate::torch::layers::Embedding;
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct PositionBias {
    relative_attention_bias: Embedding,
    num_buckets: i64,
    max_distance: i64,
}

impl PositionBias {
    /// `section` is the first block's attention.
    pub(super) fn load(section: &Section, config: &T5Config) -> Result<Self, WeightsError> {
        let (num_buckets, heads) = (config.relative_attention_num_buckets, config.num_heads);
        let relative_attention_bias = Embedding::load(&section.at("relative_attention_bias"), num_buckets, heads)?;
        let max_distance = config.relative_attention_max_distance;
        Ok(Self { relative_attention_bias, num_buckets, max_distance })
    }

    /// `[1, heads, length, length]`: of each query to each key
    pub(super) fn forward(&self, length: i64, device: Device) -> Tensor {
        let position = Tensor::arange(length, (Kind::Int64, device));
        let relative = position.unsqueeze(0) - position.unsqueeze(1); // key − query
        self.relative_attention_bias.forward(&self.bucket(&relative)).permute([2, 0, 1]).unsqueeze(0).contiguous()
    }

    /// Half of the buckets for keys before the query, half for those behind it.
    fn bucket(&self, relative: &Tensor) -> Tensor {
        let buckets = self.num_buckets / 2;
        let behind = relative.gt(0).to_kind(Kind::Int64) * buckets;
        let distance = relative.abs();
        // Of either half, a half for each distance and a half for ever wider ranges of them.
        let exact = buckets / 2;
        let range = (self.max_distance as f64 / exact as f64).ln();
        let wide = (distance.to_kind(Kind::Float) / exact as f64).log() / range * (buckets - exact) as f64;
        let wide = (wide.to_kind(Kind::Int64) + exact).clamp_max(buckets - 1);
        behind + distance.where_self(&distance.lt(exact), &wide)
    }
}
