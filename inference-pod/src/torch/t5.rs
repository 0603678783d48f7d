//! T5's encoder: tokens in, one vector a token out.
//! Transcribed from transformers 5.23.0, `models/t5/modeling_t5.py`; fields are named as checkpoint keys.

mod block;
mod config;
mod position_bias;
mod reader;
mod recent;

use easel_checkpoints::Files;
use tch::Tensor;

pub use self::reader::T5Reader;

use self::block::T5Block;
use self::config::T5Config;
use self::position_bias::PositionBias;
use super::device::Placement;
use super::layers::Embedding;
use super::rms_norm::RmsNorm;
use super::weights::{Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

#[derive(Debug)]
pub struct T5EncoderModel {
    shared: Embedding,
    /// The first block's, which all of them use.
    relative_attention_bias: PositionBias,
    block: Vec<T5Block>,
    final_layer_norm: RmsNorm,
    d_model: i64,
    placement: Placement,
    tensors: Tensors,
}

impl T5EncoderModel {
    /// Reads a folder of a checkpoint, such as `text_encoder_2`, that holds a `T5EncoderModel`. Where f16 is asked for
    /// it computes in bf16: its sums leave the range of f16.
    pub fn load(checkpoint: &Files, part: &str, placement: Placement) -> Result<Self, LoadError> {
        let (config, placement) = (T5Config::read(checkpoint, part)?, placement.with_bf16_for_f16());
        let weights = Weights::open(checkpoint, part, "model", placement).map_err(|error| error.of(part))?;
        Self::build(&config, &weights, placement).map_err(|error| error.of(part))
    }

    fn build(config: &T5Config, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        let (root, encoder) = (weights.root(), weights.root().at("encoder"));
        let blocks = encoder.at("block");
        let first_attention = blocks.at(0).at("layer").at(0).at("SelfAttention");
        let final_layer_norm = encoder.at("final_layer_norm");
        let mut model = Self {
            shared: Embedding::load(&root.at("shared"), config.vocab_size, config.d_model)?,
            relative_attention_bias: PositionBias::load(&first_attention, config)?,
            block: (0..config.num_layers)
                .map(|layer| T5Block::load(&blocks.at(layer), config))
                .collect::<Result<_, _>>()?,
            final_layer_norm: RmsNorm::load(&final_layer_norm, config.d_model, config.layer_norm_epsilon)?,
            d_model: config.d_model,
            placement,
            tensors: Tensors::default(),
        };
        // Some exports save the same tensor under its second name too.
        weights.finish(&["encoder.embed_tokens.weight"])?;
        model.tensors = weights.tensors();
        Ok(model)
    }

    /// Of one vector of the text.
    pub fn hidden_size(&self) -> i64 {
        self.d_model
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// `[batch][length]` tokens → `[batch, length, d_model]`. Padding is read like words, as diffusers' pipelines do.
    pub fn forward(&self, tokens: &[Vec<i64>]) -> Tensor {
        let rows: Vec<Tensor> = tokens.iter().map(|row| Tensor::from_slice(row)).collect();
        let input_ids = Tensor::stack(&rows, 0).to_device(self.placement.device); // [batch, length]
        let bias = self.relative_attention_bias.forward(input_ids.size()[1], self.placement.device);
        let hidden = self.shared.forward(&input_ids);
        let hidden = self.block.iter().fold(hidden, |hidden, block| block.forward(&hidden, &bias));
        self.final_layer_norm.forward(&hidden)
    }
}
