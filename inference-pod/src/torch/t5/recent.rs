//! The last few prompts and what was made of them: the pictures of a request ask for the same ones in turn.
//! Knows nothing of what it keeps.

use std::collections::VecDeque;

/// A prompt and a negative one, of two requests that take turns.
const KEPT: usize = 4;

#[derive(Debug)]
pub(super) struct Recent<T> {
    /// The last that was asked for comes last.
    kept: VecDeque<(String, T)>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { kept: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    pub(super) fn get_or<E>(&mut self, prompt: &str, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let known = self.kept.iter().position(|(kept, _)| kept == prompt);
        let entry = match known.and_then(|index| self.kept.remove(index)) {
            Some(entry) => entry,
            None => (prompt.to_owned(), make()?),
        };
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        let index = self.kept.len();
        self.kept.push_back(entry);
        Ok(&self.kept[index].1)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The prompts that something was made for.
    fn made(prompts: &[&str]) -> Vec<String> {
        let (mut recent, mut made) = (Recent::default(), Vec::new());
        for (index, prompt) in prompts.iter().enumerate() {
            let value: Result<_, Infallible> = recent.get_or(prompt, || {
                made.push((*prompt).to_owned());
                Ok(format!("{prompt} of {index}"))
            });
            assert!(value.unwrap().starts_with(&format!("{prompt} of ")));
        }
        made
    }

    #[test]
    fn a_prompt_that_was_asked_for_lately_is_not_read_again() {
        assert_eq!(made(&["a", "b", "a", "b", "a"]), ["a", "b"]);
    }

    #[test]
    fn the_one_that_was_asked_for_longest_ago_makes_room() {
        assert_eq!(made(&["a", "b", "c", "d", "a", "e", "a", "b"]), ["a", "b", "c", "d", "e", "b"]);
    }

    #[test]
    fn what_can_t_be_made_leaves_what_is_kept() {
        let mut recent = Recent::default();
        assert_eq!(recent.get_or("a", || Ok::<_, &str>(1)), Ok(&1));
        assert_eq!(recent.get_or("b", || Err("no")), Err("no"));
        assert_eq!(recent.get_or("a", || Err("asked again")), Ok(&1));
    }
}
