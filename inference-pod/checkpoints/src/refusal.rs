//! Why a checkpoint is not served, in words for the person who named it.
//! Knows reasons and text; does not know where the fault was found.

use easel_api::engine::RefusalReason;

/// What is wrong, why, and how to mend it. Never holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub reason: RefusalReason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Work that did not end in a verdict, or ended in a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    Refused(Refusal),
    /// The checkpoint is not wanted any more.
    Cancelled,
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
