//! CLIP's byte pairs: begin, words, end. Knows the files of both generations of exports.

use easel_checkpoints::Files;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::{PromptTokenizer, Token, token_id};
use crate::pipeline::LoadError;
use crate::torch::config::Config;

/// transformers 5.23.0, `models/clip/tokenization_clip.py`.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Of a config that does not say; CLIP's own.
const DEFAULT_LENGTH: f64 = 77.0;

struct SpecialTokens {
    begin: String,
    end: String,
    pad: String,
}

/// `max_length` is what the text encoder has positions for.
pub(super) fn load(checkpoint: &Files, part: &str, max_length: usize) -> Result<PromptTokenizer, LoadError> {
    let mut config = Config::read_optional(checkpoint, &format!("{part}/tokenizer_config.json"))?;
    // transformers writes 1e30 for "no limit", so it is read as a float.
    let asked: f64 = config.take_or("model_max_length", DEFAULT_LENGTH)?;
    let length = max_length.min(asked as usize);
    let special = SpecialTokens::read(checkpoint, part, &mut config)?;
    read(checkpoint, part, &special)
        .and_then(|tokenizer| PromptTokenizer::new(tokenizer, length, &special.pad))
        .map_err(|source| LoadError::Failed { part: part.to_owned(), source })
}

fn read(checkpoint: &Files, part: &str, special: &SpecialTokens) -> tokenizers::Result<Tokenizer> {
    match checkpoint.read(&format!("{part}/tokenizer.json")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => from_vocab_and_merges(checkpoint, part, special),
        whole => Tokenizer::from_bytes(whole?),
    }
}

impl SpecialTokens {
    /// transformers 5.23.0, `tokenization_utils_base.py`: `special_tokens_map.json` overrides the config, unless the
    /// config is of the generation that lists `added_tokens_decoder`.
    fn read(checkpoint: &Files, part: &str, config: &mut Config) -> Result<Self, LoadError> {
        let mut map = Config::read_optional(checkpoint, &format!("{part}/special_tokens_map.json"))?;
        let map_is_newer = config.take::<serde_json::Value>("added_tokens_decoder")?.is_none();
        let mut token = |key: &str, default: &str| -> Result<String, LoadError> {
            let of_map = map.take::<Token>(key)?.filter(|_| map_is_newer);
            let chosen = of_map.or(config.take::<Token>(key)?);
            Ok(chosen.map_or_else(|| default.to_owned(), String::from))
        };
        let (begin, end) = (token("bos_token", "<|startoftext|>")?, token("eos_token", "<|endoftext|>")?);
        let pad = token("pad_token", &end)?;
        Ok(Self { begin, end, pad })
    }
}

/// What transformers' `CLIPTokenizer` builds of the two files that exports before `tokenizer.json` have.
fn from_vocab_and_merges(checkpoint: &Files, part: &str, special: &SpecialTokens) -> tokenizers::Result<Tokenizer> {
    let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| format!("{part}/{name}"));
    if !checkpoint.contains(&vocab) || !checkpoint.contains(&merges) {
        return Err("there is neither tokenizer.json nor vocab.json and merges.txt".into());
    }
    let (vocab, merges) = (read_vocab(&checkpoint.read(&vocab)?)?, read_merges(&checkpoint.read(&merges)?)?);
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(special.end.clone())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    tokenizer
        .add_special_tokens([&special.begin, &special.end, &special.pad].map(|text| AddedToken::from(text, true)))?;
    let (begin, end) = (token_id(&tokenizer, &special.begin)?, token_id(&tokenizer, &special.end)?);
    let around = RobertaProcessing::new((special.end.clone(), end), (special.begin.clone(), begin));
    tokenizer.with_post_processor(Some(around.trim_offsets(false).add_prefix_space(false)));
    Ok(tokenizer)
}

/// tokenizers 0.23.2, `models/bpe/model.rs`, which reads files only: what is no number is no token.
fn read_vocab(bytes: &[u8]) -> tokenizers::Result<Vocab> {
    let vocab: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
    let ids = vocab.into_iter().filter(|(_, id)| id.is_number());
    let read = |(token, id): (String, serde_json::Value)| Some((token, u32::try_from(id.as_u64()?).ok()?));
    ids.map(|entry| read(entry).ok_or_else(|| "vocab.json has an id that is no id".into())).collect()
}

/// The same file: two tokens a line, below a line that names the version.
fn read_merges(bytes: &[u8]) -> tokenizers::Result<Vec<(String, String)>> {
    let lines = std::str::from_utf8(bytes)?.lines().filter(|line| !line.starts_with("#version"));
    let pair = |(rank, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
        Some(_) | None => Err(format!("merges.txt: merge {} is no pair of tokens", rank + 1).into()),
    };
    lines.enumerate().map(pair).collect()
}
