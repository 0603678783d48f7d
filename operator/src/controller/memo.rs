//! What this leader has written lately, so that equal writes are spared; forgotten after a while, so that what
//! somebody undid is done again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FORGET_AFTER: Duration = Duration::from_mins(10);

/// Kind, namespace and name.
pub(super) type Key = (&'static str, String, String);

#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<BTreeMap<Key, (String, Instant)>>);

impl Memo {
    pub(super) fn is_written(&self, key: &Key, contents: &str, now: Instant) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).is_some_and(|(text, at)| text == contents && now.duration_since(*at) < FORGET_AFTER)
    }

    pub(super) fn remember(&self, key: Key, contents: String, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (contents, now));
    }

    /// Of a workload that is removed: all of it is written again when it returns.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(_, of, called), _| of != namespace || called != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_remembered_for_a_while_and_only_as_it_was() {
        let (memo, now) = (Memo::default(), Instant::now());
        let key: Key = ("Secret", "n".into(), "a".into());
        memo.remember(key.clone(), "x".into(), now);
        assert!(memo.is_written(&key, "x", now));
        assert!(!memo.is_written(&key, "y", now));
        assert!(!memo.is_written(&key, "x", now + FORGET_AFTER));
        memo.forget("n", "a");
        assert!(!memo.is_written(&key, "x", now));
    }
}
