//! Turns a prompt into tokens: words, an end, padding up to the length that the text encoder reads.
//! Knows the two kinds of tokenizers that models here have; does not know the text encoders.

mod clip;
mod t5;

use easel_checkpoints::Files;
use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationParams};

use crate::pipeline::{LoadError, PipelineError};

#[derive(Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    pad: i64,
}

/// Old configs write a token as a string, newer ones as an object with flags.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        match token {
            Token::Text(text) | Token::Added { content: text } => text,
        }
    }
}

impl PromptTokenizer {
    /// Reads CLIP's from a folder of a checkpoint, such as `tokenizer`. `max_length` is what the text encoder has
    /// positions for.
    pub fn load_clip(checkpoint: &Files, part: &str, max_length: usize) -> Result<Self, LoadError> {
        clip::load(checkpoint, part, max_length)
    }

    /// Reads T5's. `length` is what the pipeline shows of every prompt: T5 itself has no limit.
    pub fn load_t5(checkpoint: &Files, part: &str, length: usize) -> Result<Self, LoadError> {
        t5::load(checkpoint, part, length)
    }

    fn new(mut tokenizer: Tokenizer, length: usize, pad: &str) -> tokenizers::Result<Self> {
        let added = tokenizer.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        if length <= added {
            return Err(format!("the length of {length} tokens leaves no room for a prompt").into());
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(Some(TruncationParams { max_length: length, ..TruncationParams::default() }))?;
        let pad = token_id(&tokenizer, pad)?;
        Ok(Self { tokenizer, length, pad: i64::from(pad) })
    }

    /// Tokens of every prompt, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Exactly `length()` tokens; a longer prompt loses its end, but not the end token.
    pub fn encode(&self, prompt: &str) -> tokenizers::Result<Vec<i64>> {
        let encoding = self.tokenizer.encode(prompt, true)?;
        let mut tokens: Vec<i64> = encoding.get_ids().iter().copied().map(i64::from).collect();
        tokens.resize(self.length, self.pad);
        Ok(tokens)
    }

    /// [`Self::encode`] of several prompts of a request.
    pub fn encode_all(&self, prompts: &[impl AsRef<str>]) -> Result<Vec<Vec<i64>>, PipelineError> {
        let unsupported = |error| PipelineError::Unsupported(format!("the prompt can't be tokenised: {error}"));
        prompts.iter().map(|prompt| self.encode(prompt.as_ref())).collect::<Result<_, _>>().map_err(unsupported)
    }

    /// Tokens of this prompt without padding; begin and end, where there are any, included.
    pub fn count(&self, prompt: &str) -> u32 {
        self.tokenizer.encode(prompt, true).map_or(0, |encoding| encoding.len() as u32)
    }
}

fn token_id(tokenizer: &Tokenizer, token: &str) -> tokenizers::Result<u32> {
    tokenizer.token_to_id(token).ok_or_else(|| format!("the vocabulary has no token '{token}'").into())
}
