//! One block of T5: every token attends to every other, then each goes through the feed-forward.
//! Transcribed from transformers 5.23.0, `models/t5/modeling_t5.py`; the bias by distance comes from outside.

use tch::Tensor;

use super::config::{FeedForwardProj, T5Config};
use crate::torch::layers::Linear;
use crate::torch::rms_norm::RmsNorm;
use crate::torch::weights::{Section, WeightsError};

#[derive(Debug)]
pub(super) struct T5Block {
    self_attention: Attention,
    attention_norm: RmsNorm,
    dense: DenseReluDense,
    dense_norm: RmsNorm,
}

impl T5Block {
    pub(super) fn load(section: &Section, config: &T5Config) -> Result<Self, WeightsError> {
        let layers = section.at("layer");
        let norm =
            |layer: usize| RmsNorm::load(&layers.at(layer).at("layer_norm"), config.d_model, config.layer_norm_epsilon);
        Ok(Self {
            self_attention: Attention::load(&layers.at(0).at("SelfAttention"), config)?,
            attention_norm: norm(0)?,
            dense: DenseReluDense::load(&layers.at(1).at("DenseReluDense"), config)?,
            dense_norm: norm(1)?,
        })
    }

    /// `[batch, length, d_model]` and `[1, heads, length, length]` → the shape of the first
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let x = x + self.self_attention.forward(&self.attention_norm.forward(x), bias);
        &x + self.dense.forward(&self.dense_norm.forward(&x))
    }
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
}

impl Attention {
    fn load(section: &Section, config: &T5Config) -> Result<Self, WeightsError> {
        let inner = config.num_heads * config.d_kv;
        let read = |name: &str| Linear::load_without_bias(&section.at(name), config.d_model, inner);
        let o = Linear::load_without_bias(&section.at("o"), inner, config.d_model)?;
        Ok(Self { q: read("q")?, k: read("k")?, v: read("v")?, o, heads: config.num_heads })
    }

    /// The products of queries and keys are not scaled.
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let by_head = |linear: &Linear| linear.forward(x).unflatten(-1, [self.heads, -1]).transpose(1, 2); // [batch, heads, length, d_kv]
        let (q, k, v) = (by_head(&self.q), by_head(&self.k), by_head(&self.v));
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(bias), 0.0, false, Some(1.0), false);
        self.o.forward(&out.transpose(1, 2).flatten(2, 3))
    }
}

#[derive(Debug)]
struct DenseReluDense {
    wi: In,
    wo: Linear,
}

#[derive(Debug)]
enum In {
    Relu { wi: Linear },
    GatedGelu { wi_0: Linear, wi_1: Linear },
}

impl DenseReluDense {
    fn load(section: &Section, config: &T5Config) -> Result<Self, WeightsError> {
        let read = |name: &str| Linear::load_without_bias(&section.at(name), config.d_model, config.d_ff);
        let wi = match config.feed_forward_proj {
            FeedForwardProj::Relu => In::Relu { wi: read("wi")? },
            FeedForwardProj::GatedGelu => In::GatedGelu { wi_0: read("wi_0")?, wi_1: read("wi_1")? },
        };
        Ok(Self { wi, wo: Linear::load_without_bias(&section.at("wo"), config.d_ff, config.d_model)? })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let inner = match &self.wi {
            In::Relu { wi } => wi.forward(x).relu(),
            In::GatedGelu { wi_0, wi_1 } => wi_0.forward(x).gelu("tanh") * wi_1.forward(x),
        };
        self.wo.forward(&inner)
    }
}
