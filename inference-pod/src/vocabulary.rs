//! The words that a checkpoint was trained on, and what to say of a prompt that has others.
//! Knows words and a header's bounds; does not know tokens, models or HTTP.

use std::collections::BTreeSet;

use easel_checkpoints::Files;

use crate::pipeline::LoadError;

/// A JSON array of lower-case words. Checkpoints without it know what they know, and nothing is said.
const FILE: &str = "tokenizer/known_words.json";
/// Words that a warning names.
const NAMED: usize = 5;
/// Characters of one of them.
const MAX_WORD: usize = 24;

/// They carry no picture: known everywhere, and alone no knowledge. With what is left of contractions.
const FUNCTION_WORDS: [&str; 65] = [
    "a", "about", "all", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "d", "did",
    "do", "does", "for", "from", "had", "has", "have", "he", "her", "his", "i", "in", "into", "is", "it", "its", "ll",
    "m", "me", "my", "no", "not", "of", "on", "or", "our", "please", "re", "s", "she", "so", "some", "t", "that",
    "the", "their", "them", "there", "these", "they", "this", "to", "ve", "very", "was", "we", "with", "you",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    words: BTreeSet<String>,
}

impl Vocabulary {
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self { words: words.into_iter().collect() }
    }

    /// `None` where the checkpoint does not say.
    pub fn read(checkpoint: &Files) -> Result<Option<Self>, LoadError> {
        let bytes = match checkpoint.read(FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LoadError::Failed { part: FILE.to_owned(), source: Box::new(source) }),
        };
        let words: Vec<String> = serde_json::from_slice(&bytes).map_err(|error| {
            LoadError::Unsupported(format!("{FILE} must be a JSON array of lower-case words, or be left out: {error}"))
        })?;
        Ok(Some(Self::new(words)))
    }

    /// What to tell who sent this prompt; `None` when every word of it is known. ASCII on one line, at most about 300
    /// characters, so that it can stand in a header.
    pub fn warning(&self, prompt: &str) -> Option<String> {
        let mut unknown: Vec<String> = Vec::new();
        let mut knows_one = false;
        for word in words(prompt).filter(|word| !FUNCTION_WORDS.contains(&word.as_str())) {
            if self.words.contains(&word) {
                knows_one = true;
            } else if !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        let trained = format!("it was trained on {} words, those of {FILE} in its checkpoint", self.words.len());
        match (knows_one, unknown.is_empty()) {
            (true, true) => None,
            (true, false) => Some(format!("the model does not know: {}; {trained}", named(&unknown))),
            (false, false) => Some(format!("the model knows none of the words {}; {trained}", named(&unknown))),
            (false, true) => {
                Some(format!("the prompt has no word that says what to draw; the model reads words, and {trained}"))
            }
        }
    }
}

/// Runs of letters and digits, lower-cased.
fn words(prompt: &str) -> impl Iterator<Item = String> {
    prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn named(unknown: &[String]) -> String {
    let quoted: Vec<String> = unknown.iter().take(NAMED).map(|word| format!("\"{}\"", ascii(word))).collect();
    let rest = unknown.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", quoted.join(", "))
}

/// Other alphabets as Rust writes them: `\u{732b}`. A header has no better way that every client reads.
fn ascii(word: &str) -> String {
    let mut text = String::new();
    for escaped in word.chars().map(char::escape_default) {
        if text.len() + escaped.len() > MAX_WORD {
            text.push_str("...");
            break;
        }
        text.extend(escaped);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn warning(prompt: &str) -> Option<String> {
        Vocabulary::new(["pizza", "red", "heart", "8ball", "the"].map(ToOwned::to_owned)).warning(prompt)
    }

    #[test]
    fn a_prompt_of_known_words_is_drawn_without_a_word() {
        for prompt in ["pizza", "A RED heart, please!", "the heart of a pizza", "8ball", "it's red"] {
            assert_eq!(warning(prompt), None, "{prompt}");
        }
    }

    #[test]
    fn a_prompt_without_a_known_word_is_told_so_with_its_words() {
        let said = warning("the astronaut's spaceship").unwrap();
        let start = r#"the model knows none of the words "astronaut", "spaceship"; it was trained on 5 words"#;
        assert!(said.starts_with(start), "{said}");
    }

    #[test]
    fn a_prompt_with_some_known_words_is_told_the_others_once_each() {
        let said = warning("zebra, zebra with a red heart").unwrap();
        assert!(said.starts_with(r#"the model does not know: "zebra"; "#), "{said}");
    }

    #[test]
    fn function_words_alone_are_no_knowledge() {
        for prompt in ["the", "of a", "🐈", "..."] {
            assert!(warning(prompt).unwrap().starts_with("the prompt has no word that says what to draw"), "{prompt}");
        }
    }

    #[test]
    fn five_words_are_named_and_the_rest_is_counted() {
        let said = warning("b1 b2 b3 b4 b5 b6 b7").unwrap();
        assert!(said.contains(r#""b5" and 2 more;"#), "{said}");
    }

    #[test]
    fn function_words_are_in_order_and_named_once() {
        assert!(FUNCTION_WORDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_file_that_is_no_list_of_words_is_refused_by_name_and_no_file_is_no_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let read = || Vocabulary::read(&Files::trusted(folder.path()).unwrap());
        assert_eq!(read().unwrap(), None);
        std::fs::create_dir(folder.path().join("tokenizer")).unwrap();
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(read().unwrap_err().to_string().contains(FILE));
        std::fs::write(folder.path().join(FILE), r#"["pizza"]"#).unwrap();
        assert_eq!(read().unwrap(), Some(Vocabulary::new(["pizza".to_owned()])));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_warning_can_stand_in_a_header(prompt in "\\PC{0,400}|.{0,400}") {
            let said = warning(&prompt).unwrap_or_default();
            prop_assert!(said.len() <= 400 && said.bytes().all(|b| (0x20..0x7f).contains(&b)), "{}", said);
        }
    }
}
