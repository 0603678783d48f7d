//! Two CLIPs with their tokenizers, as Stable Diffusion XL and 3 have them.
//! Transcribed from diffusers 0.42.1, `pipeline_stable_diffusion_xl.py` and `.._3.py`, `encode_prompt`.

use easel_checkpoints::Files;
use tch::Tensor;

use super::ClipTextModel;
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::lora::Layers;
use crate::torch::tokenizer::PromptTokenizer;
use crate::torch::weights::Tensors;

#[derive(Debug)]
pub struct ClipPair {
    tokenizers: [PromptTokenizer; 2],
    text_encoders: [ClipTextModel; 2],
}

/// Prompts as both read them, side by side.
#[derive(Debug)]
pub struct PairOutput {
    /// Of the last layer but one: `[rows, length, hidden_size]`
    pub hidden: Tensor,
    /// Of the encoders that have a projection: `[rows, pooled_size]`
    pub pooled: Tensor,
}

impl ClipPair {
    /// Reads `tokenizer/` and `tokenizer_2/` of a checkpoint to the text encoders of it, of which the second must have
    /// a projection.
    pub fn load(checkpoint: &Files, text_encoders: [ClipTextModel; 2]) -> Result<Self, LoadError> {
        let tokenizers = [
            PromptTokenizer::load_clip(checkpoint, "tokenizer", text_encoders[0].max_length())?,
            PromptTokenizer::load_clip(checkpoint, "tokenizer_2", text_encoders[1].max_length())?,
        ];
        let [first, second] = [&tokenizers[0], &tokenizers[1]].map(PromptTokenizer::length);
        if first != second {
            return Err(LoadError::Unsupported(format!(
                "tokenizer_2: prompts have {second} tokens here and {first} in tokenizer; they are read side by side, so \
                 both must be equal"
            )));
        }
        Ok(Self { tokenizers, text_encoders })
    }

    pub fn encode(&self, prompts: &[impl AsRef<str>]) -> Result<PairOutput, PipelineError> {
        let (mut hidden, mut pooled) = (Vec::new(), Vec::new());
        for (tokenizer, text_encoder) in self.tokenizers.iter().zip(&self.text_encoders) {
            let read = text_encoder.forward_penultimate(&tokenizer.encode_all(prompts)?);
            hidden.push(read.hidden);
            pooled.extend(read.pooled);
        }
        Ok(PairOutput { hidden: Tensor::cat(&hidden, -1), pooled: Tensor::cat(&pooled, -1) })
    }

    /// Tokens of every prompt, padding included.
    pub fn length(&self) -> usize {
        self.tokenizers[0].length()
    }

    /// Tokens that the first encoder reads of this prompt, without padding.
    pub fn count(&self, prompt: &str) -> u32 {
        self.tokenizers[0].count(prompt)
    }

    pub fn hidden_size(&self) -> i64 {
        self.text_encoders.iter().map(ClipTextModel::hidden_size).sum()
    }

    pub fn pooled_size(&self) -> i64 {
        self.text_encoders.iter().filter_map(ClipTextModel::projection_dim).sum()
    }

    /// Layers of both that adapters can change.
    pub fn adaptable(&self) -> Layers {
        let [first, second] = &self.text_encoders;
        Layers::default().and(first.adaptable()).and(second.adaptable())
    }

    pub fn tensors(&self) -> impl Iterator<Item = &Tensors> {
        self.text_encoders.iter().map(ClipTextModel::tensors)
    }
}
