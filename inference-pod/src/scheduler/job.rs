//! One job between its admission and its last step.

use std::time::{Duration, Instant};

use easel_api::{Priority, Tenant};

use super::order::{Due, Rank};
use super::shares::Shares;
use super::{JobId, NewRequest, PipelineId, RequestId};
use crate::pipeline::BatchKey;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: RequestId,
    pub(super) tenant: Tenant,
    class: Priority,
    pub(super) pipeline: PipelineId,
    pub(super) key: BatchKey,
    due: Due,
    deadline: Option<Instant>,
    pub(super) steps_left: u32,
    pub(super) steps_taken: u32,
    /// Has latents.
    pub(super) is_running: bool,
}

impl Job {
    /// The job of this place in its request.
    pub(super) fn new(request: &NewRequest, place: u32, arrival: Instant, patience: Duration) -> Self {
        let NewRequest { id, tenant, class, pipeline, key, jobs: _, steps, taken, deadline } = request.clone();
        let taken = taken.get(place as usize).copied().unwrap_or(0);
        Self {
            request: id,
            tenant,
            class,
            pipeline,
            key,
            due: Due::new(arrival, deadline, patience),
            deadline,
            steps_left: steps.saturating_sub(taken).max(1),
            steps_taken: 0,
            is_running: false,
        }
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn shape(&self) -> (PipelineId, BatchKey) {
        (self.pipeline, self.key)
    }

    pub(super) fn rank(&self, job: JobId, shares: &Shares, patience: Duration, now: Instant) -> Rank {
        let lane = self.due.lane(self.class, patience, now);
        Rank { lane, turn: shares.turn(lane, &self.tenant), due: self.due, job }
    }
}
