//! How far a fetch is, told without waiting: written by those who work, read by whoever reports.
//! Knows numbers; does not know what they are of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Progress {
    /// Set while something in the cache is hashed.
    verifying: AtomicU64,
    verify_total: AtomicU64,
    pub(crate) done: Arc<AtomicU64>,
    total: AtomicU64,
    pub(crate) fetched: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is known yet.
    Asking,
    Fetching {
        done_bytes: u64,
        total_bytes: u64,
    },
    /// What the cache has.
    Verifying {
        done_bytes: u64,
        total_bytes: u64,
    },
}

impl Progress {
    pub fn stage(&self) -> Stage {
        let [total, verify_total] = [&self.total, &self.verify_total].map(|bytes| bytes.load(Ordering::Relaxed));
        if verify_total > 0 {
            let done = self.verifying.load(Ordering::Relaxed);
            return Stage::Verifying { done_bytes: done.min(verify_total), total_bytes: verify_total };
        }
        if total == 0 {
            return Stage::Asking;
        }
        Stage::Fetching { done_bytes: self.done.load(Ordering::Relaxed).min(total), total_bytes: total }
    }

    /// Bytes that came from the store, those of broken tries included.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub(crate) fn verifying(&self, done: u64, total: u64) {
        self.verifying.store(done, Ordering::Relaxed);
        self.verify_total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.verify_total.store(0, Ordering::Relaxed);
    }

    /// What another pod has fetched of it.
    pub(crate) fn others(&self, done: u64, total: u64) {
        self.begin(total);
        self.done.store(done, Ordering::Relaxed);
    }
}
