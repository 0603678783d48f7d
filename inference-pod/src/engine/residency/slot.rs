//! One desired model on its way, and the fetch or load that somebody is at.
//! Knows what is to be done next; does not know other models, nor who does it.

use std::time::Instant;

use easel_api::engine::{Access, Checkpoint, DesiredModel, ModelId, ModelState, Source};
use easel_checkpoints::Held;
use tokio_util::sync::CancellationToken;

use crate::scheduler::PipelineId;

/// One desired model.
pub(super) struct Slot {
    pub(super) desired: DesiredModel,
    /// Of the desired checkpoint. A refusal stays until the next try has come as far as to say more.
    pub(super) state: ModelState,
    pub(super) next: Next,
    /// Refusals in a row.
    pub(super) failures: u32,
    /// Who draws: the desired checkpoint, or the former one until that is ready.
    pub(super) serving: Option<PipelineId>,
    /// Did not fit while others were about to leave; is tried again when they have left.
    pub(super) deferred: bool,
}

/// What is to be done for a slot.
#[derive(Debug)]
pub(super) enum Next {
    /// Fetch it, or load it if it is a folder.
    Begin,
    Load(Held),
    /// Begin, at this time.
    Retry(Instant),
    /// It is ready, refused for good, or somebody is at it.
    Nothing,
}

/// A fetch or a load that somebody is at.
pub(super) struct InFlight {
    pub(super) ticket: u64,
    pub(super) model: ModelId,
    pub(super) checkpoint: Checkpoint,
    pub(super) access: Option<Access>,
    pub(super) unwanted: CancellationToken,
}

impl InFlight {
    pub(super) fn new(ticket: u64, desired: &DesiredModel) -> Self {
        let DesiredModel { id, checkpoint, access, defaults: _, limits: _, tier: _, adapters: _ } = desired.clone();
        Self { ticket, model: id, checkpoint, access, unwanted: CancellationToken::new() }
    }

    pub(super) fn is_of(&self, desired: &DesiredModel) -> bool {
        (&self.model, &self.checkpoint) == (&desired.id, &desired.checkpoint)
    }

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
            Next::Load(_) | Next::Nothing => false,
        }
    }
}

impl Next {
    /// For the same checkpoint in a newer residency.
    pub(super) fn resumed(self) -> Self {
        match self {
            Self::Load(held) => Self::Load(held),
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
