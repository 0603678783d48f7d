//! One desired model on its way, and the fetch, load or move that somebody is at.
//! Knows what is to be done next; does not know other models, nor who does it.

use std::time::Instant;

use easel_api::engine::{Access, DesiredModel, ModelState, Source, Tier};
use tokio_util::sync::CancellationToken;

use crate::scheduler::PipelineId;

/// One desired model.
pub(super) struct Slot {
    pub(super) desired: DesiredModel,
    /// Of the desired checkpoint's record.
    pub(super) id: PipelineId,
    /// Of the desired checkpoint, on its way to the tier that it is kept in; ready once it was there. A refusal stays
    /// until the next try has come as far as to say more.
    pub(super) state: ModelState,
    pub(super) next: Next,
    /// Refusals in a row.
    pub(super) failures: u32,
    /// Who answers: the desired checkpoint, or the former one until that is ready.
    pub(super) serving: Option<PipelineId>,
}

/// What is to be done for a slot whose checkpoint is not ready yet.
#[derive(Debug)]
pub(super) enum Next {
    /// Fetch it, or load it if it is a folder.
    Begin,
    /// It was fetched.
    Load,
    /// Begin, at this time.
    Retry(Instant),
    /// It is ready, refused for good, or somebody is at it.
    Nothing,
}

/// What somebody is at.
pub(super) struct InFlight {
    pub(super) ticket: u64,
    pub(super) id: PipelineId,
    pub(super) access: Option<Access>,
    pub(super) from: Option<Tier>,
    pub(super) began: Instant,
    pub(super) unwanted: CancellationToken,
}

impl InFlight {
    pub(super) fn is_wanted(&self) -> bool {
        !self.unwanted.is_cancelled()
    }
}

impl Slot {
    pub(super) fn is_remote(&self) -> bool {
        match self.desired.checkpoint.source {
            Source::Folder { .. } => false,
            Source::Oci { .. } | Source::S3 { .. } => true,
        }
    }

    pub(super) fn begins(&self, now: Instant) -> bool {
        match self.next {
            Next::Begin => true,
            Next::Retry(at) => at <= now,
            Next::Load | Next::Nothing => false,
        }
    }

    /// Its files are at hand, and nobody is at them.
    pub(super) fn may_load(&self, now: Instant) -> bool {
        matches!(self.next, Next::Load) || (!self.is_remote() && self.begins(now))
    }

    pub(super) fn names(&self, id: PipelineId) -> bool {
        self.id == id || self.serving == Some(id)
    }

    /// The desired checkpoint from now on.
    pub(super) fn serve(&mut self) {
        (self.state, self.next, self.failures) = (ModelState::Ready, Next::Nothing, 0);
        self.serving = Some(self.id); // who served before retires
    }

    /// As if the desired checkpoint had never been here.
    pub(super) fn reset(&mut self, next: Next) {
        self.serving = self.serving.filter(|id| *id != self.id);
        (self.state, self.next) = (not_begun(&self.desired.checkpoint.source), next);
    }
}

impl Next {
    /// For the same checkpoint in a newer residency.
    pub(super) fn resumed(self) -> Self {
        match self {
            Self::Load => Self::Load,
            Self::Begin | Self::Retry(_) | Self::Nothing => Self::Begin,
        }
    }
}

pub(super) fn not_begun(source: &Source) -> ModelState {
    match source {
        Source::Folder { .. } => ModelState::Verifying { done_bytes: 0, total_bytes: 0 },
        Source::Oci { .. } | Source::S3 { .. } => {
            ModelState::Fetching { done_bytes: 0, total_bytes: 0, seconds_left: None }
        }
    }
}
