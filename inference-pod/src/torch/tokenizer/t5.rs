//! T5's unigrams: words, end. Only `tokenizer.json` is read, not `SentencePiece`'s own file.

use easel_checkpoints::Files;
use tokenizers::Tokenizer;

use super::{PromptTokenizer, Token};
use crate::pipeline::LoadError;
use crate::torch::config::Config;

const DEFAULT_PAD: &str = "<pad>";

pub(super) fn load(checkpoint: &Files, part: &str, length: usize) -> Result<PromptTokenizer, LoadError> {
    let file = format!("{part}/tokenizer.json");
    if !checkpoint.contains(&file) {
        return Err(LoadError::Unsupported(format!(
            "{file} is missing; load the folder with transformers' T5TokenizerFast and save it again, which writes it \
             from spiece.model"
        )));
    }
    let mut config = Config::read_optional(checkpoint, &format!("{part}/tokenizer_config.json"))?;
    let pad = config.take::<Token>("pad_token")?.map_or_else(|| DEFAULT_PAD.to_owned(), String::from);
    let read = || PromptTokenizer::new(Tokenizer::from_bytes(checkpoint.read(&file)?)?, length, &pad);
    read().map_err(|source| LoadError::Failed { part: part.to_owned(), source })
}
