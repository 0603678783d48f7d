//! The adapters that models shall have, and how far each is on its way to the disk.
//! Knows names, digests and times; fetches and reads nothing itself.

use std::sync::Arc;
use std::time::Instant;

use easel_api::engine::{DesiredAdapter, DesiredModel, ModelId, Source};
use easel_checkpoints::{Held, Refusal};
use tokio_util::sync::CancellationToken;

use super::loading::FetchOrder;
use crate::engine::retry;

/// At once: they are small, and models that are being fetched go before.
const MAX_FETCHES: usize = 1;

#[derive(Debug)]
pub(super) enum Disk {
    /// It is to be fetched.
    Begin,
    Fetching {
        ticket: u64,
        unwanted: CancellationToken,
    },
    /// It can be read; a folder has no place in the cache.
    There(Option<Arc<Held>>),
    Retry {
        at: Instant,
        refusal: Refusal,
    },
    Refused(Refusal),
}

/// One adapter of one model.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) model: ModelId,
    pub(super) desired: DesiredAdapter,
    pub(super) disk: Disk,
    /// Refusals in a row.
    failures: u32,
}

#[derive(Debug, Default)]
pub(super) struct Stock {
    /// In the order of the residency.
    entries: Vec<Entry>,
    next: u64,
}

impl Stock {
    /// What was refused is begun again: what was missing may be there now.
    pub(super) fn apply(&mut self, models: &[DesiredModel]) {
        let mut former = std::mem::take(&mut self.entries);
        for model in models {
            for desired in &model.adapters {
                let same = |entry: &Entry| {
                    (&entry.model, &entry.desired.name, &entry.desired.checkpoint)
                        == (&model.id, &desired.name, &desired.checkpoint)
                };
                let before = former.iter().position(same).map(|index| former.swap_remove(index));
                let (disk, failures) = match before {
                    Some(Entry { disk: disk @ (Disk::Fetching { .. } | Disk::There(_)), failures, .. }) => {
                        (disk, failures)
                    }
                    Some(Entry { failures, .. }) => (begin(&desired.checkpoint.source), failures),
                    None => (begin(&desired.checkpoint.source), 0),
                };
                self.entries.push(Entry { model: model.id.clone(), desired: desired.clone(), disk, failures });
            }
        }
        for gone in former {
            if let Disk::Fetching { unwanted, .. } = gone.disk {
                unwanted.cancel();
            }
        }
    }

    pub(super) fn find(&self, model: &ModelId, name: &str) -> Option<&Entry> {
        self.of(model).find(|entry| entry.desired.name == name)
    }

    pub(super) fn of(&self, model: &ModelId) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.model == *model)
    }

    pub(super) fn names(&self, model: &ModelId) -> Vec<&str> {
        self.of(model).map(|entry| entry.desired.name.as_str()).collect()
    }

    /// Whether a model has an adapter of this digest.
    pub(super) fn wants(&self, model: &ModelId, digest: &str) -> bool {
        self.of(model).any(|entry| entry.desired.checkpoint.digest == digest)
    }

    /// The next that shall be fetched, if there is a place.
    pub(super) fn next_fetch(&mut self, now: Instant) -> Option<FetchOrder> {
        let fetches = self.entries.iter().filter(|entry| matches!(entry.disk, Disk::Fetching { .. })).count();
        if fetches >= MAX_FETCHES {
            return None;
        }
        let is_due = |entry: &&mut Entry| match &entry.disk {
            Disk::Begin => true,
            Disk::Retry { at, refusal: _ } => *at <= now,
            Disk::Fetching { .. } | Disk::There(_) | Disk::Refused(_) => false,
        };
        let entry = self.entries.iter_mut().find(is_due)?;
        self.next += 1;
        let (ticket, unwanted) = (self.next, CancellationToken::new());
        let DesiredAdapter { name: _, checkpoint, access } = entry.desired.clone();
        entry.disk = Disk::Fetching { ticket, unwanted: unwanted.clone() };
        Some(FetchOrder { ticket, checkpoint, access, unwanted })
    }

    pub(super) fn fetched(&mut self, ticket: u64, result: Result<Held, Refusal>, now: Instant) {
        let is_it = |entry: &&mut Entry| matches!(entry.disk, Disk::Fetching { ticket: of, .. } if of == ticket);
        let Some(entry) = self.entries.iter_mut().find(is_it) else { return }; // nobody wants it any more
        match result {
            Ok(held) => (entry.disk, entry.failures) = (Disk::There(Some(Arc::new(held))), 0),
            Err(refusal) => entry.refuse(refusal, now),
        }
    }

    /// What was read is not what it should be: only another digest, or another try of the operator, can help.
    pub(super) fn refuse(&mut self, model: &ModelId, digest: &str, refusal: &Refusal) {
        for entry in &mut self.entries {
            if entry.model == *model && entry.desired.checkpoint.digest == digest {
                entry.say(refusal, None);
                entry.disk = Disk::Refused(refusal.clone());
            }
        }
    }

    /// When something is due that is not due now.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let retry = |entry: &Entry| match entry.disk {
            Disk::Retry { at, refusal: _ } => Some(at),
            Disk::Begin | Disk::Fetching { .. } | Disk::There(_) | Disk::Refused(_) => None,
        };
        self.entries.iter().filter_map(retry).min()
    }
}

impl Entry {
    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.failures += 1;
        let pause = retry::pause(refusal.reason, self.failures);
        self.say(&refusal, pause.map(|pause| pause.as_secs()));
        self.disk = match pause {
            Some(pause) => Disk::Retry { at: now + pause, refusal },
            None => Disk::Refused(refusal),
        };
    }

    fn say(&self, Refusal { reason, message }: &Refusal, again: Option<u64>) {
        tracing::warn!(model = %self.model, adapter = self.desired.name, ?reason, message, again, "adapter refused");
    }
}

fn begin(source: &Source) -> Disk {
    match source {
        Source::Folder { .. } => Disk::There(None),
        Source::Oci { .. } | Source::S3 { .. } => Disk::Begin,
    }
}
