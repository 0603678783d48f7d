//! T5 with its tokenizer, as a pipeline asks it: prompts in, vectors out.

use easel_checkpoints::Files;
use tch::Tensor;

use super::T5EncoderModel;
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::device::Placement;
use crate::torch::tokenizer::PromptTokenizer;

#[derive(Debug)]
pub struct T5Reader {
    tokenizer: PromptTokenizer,
    text_encoder: T5EncoderModel,
}

impl T5Reader {
    /// Reads two folders of a checkpoint; of every prompt `length` tokens are shown.
    pub fn load(
        checkpoint: &Files,
        [tokenizer, text_encoder]: [&str; 2],
        length: usize,
        placement: Placement,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            tokenizer: PromptTokenizer::load_t5(checkpoint, tokenizer, length)?,
            text_encoder: T5EncoderModel::load(checkpoint, text_encoder, placement)?,
        })
    }

    /// `[rows, length, d_model]`
    pub fn encode(&self, prompts: &[impl AsRef<str>]) -> Result<Tensor, PipelineError> {
        Ok(self.text_encoder.forward(&self.tokenizer.encode_all(prompts)?))
    }

    /// Tokens of this prompt without padding.
    pub fn count(&self, prompt: &str) -> u32 {
        self.tokenizer.count(prompt)
    }

    pub fn hidden_size(&self) -> i64 {
        self.text_encoder.hidden_size()
    }

    pub fn bytes(&self) -> u64 {
        self.text_encoder.bytes()
    }
}
