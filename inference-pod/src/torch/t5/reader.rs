//! T5 with its tokenizer, as a pipeline asks it: prompts in, vectors out.

use std::cell::RefCell;

use easel_checkpoints::Files;
use tch::Tensor;

use super::T5EncoderModel;
use super::recent::Recent;
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::device::Placement;
use crate::torch::tokenizer::PromptTokenizer;
use crate::torch::weights::Tensors;

#[derive(Debug)]
pub struct T5Reader {
    tokenizer: PromptTokenizer,
    text_encoder: T5EncoderModel,
    /// `[1, length, d_model]` of each, together 32 MiB at most (512 by 4096 of f32). T5-xxl takes 4.8 TFLOP to read one.
    recent: RefCell<Recent<Tensor>>,
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
            recent: RefCell::default(),
        })
    }

    /// `[rows, length, d_model]`. Each prompt is read alone, so that its vectors do not depend on which were kept.
    pub fn encode(&self, prompts: &[impl AsRef<str>]) -> Result<Tensor, PipelineError> {
        let mut recent = self.recent.borrow_mut();
        let rows: Vec<Tensor> = prompts
            .iter()
            .map(|prompt| {
                let read = || Ok(self.text_encoder.forward(&self.tokenizer.encode_all(&[prompt.as_ref()])?));
                recent.get_or(prompt.as_ref(), read).map(Tensor::shallow_clone)
            })
            .collect::<Result<_, PipelineError>>()?;
        Ok(Tensor::cat(&rows, 0))
    }

    /// Tokens of this prompt without padding.
    pub fn count(&self, prompt: &str) -> u32 {
        self.tokenizer.count(prompt)
    }

    pub fn hidden_size(&self) -> i64 {
        self.text_encoder.hidden_size()
    }

    pub fn tensors(&self) -> &Tensors {
        self.text_encoder.tensors()
    }
}
