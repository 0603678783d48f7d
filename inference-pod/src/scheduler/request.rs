//! What is asked of the scheduler, and what it says.

use std::time::{Duration, Instant};

use easel_api::{Priority, Tenant};

use crate::pipeline::BatchKey;

/// One picture on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A client's request: one or more jobs that are answered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One loaded checkpoint. Two digests of one model are two of these, so they never share a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineId(pub u64);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs in one step.
    pub max_batch: usize,
    /// Jobs that have started and hold latents; each costs memory while others go first.
    pub max_running: usize,
    /// Jobs that wait for their first step.
    pub max_waiting: usize,
    /// After it a job is of age: it counts as of the highest class, and what its tenant sends later does not go first.
    /// What a request that names no nearer deadline is taken to have.
    pub patience: Duration,
}

/// Bytes for pictures on their way, beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    pub now: u64,
    /// When a load that is going on has ended without success.
    pub at_best: u64,
}

/// What a request asks of the scheduler: all of its jobs have one shape.
#[derive(Clone, Debug)]
pub struct NewRequest {
    pub id: RequestId,
    pub tenant: Tenant,
    pub class: Priority,
    pub pipeline: PipelineId,
    pub key: BatchKey,
    pub jobs: u32,
    /// Model calls for each job.
    pub steps: u32,
    /// Of these, those that each job has behind it already; of jobs without a number here, none.
    pub taken: Vec<u32>,
    /// After this instant an answer is worth nothing.
    pub deadline: Option<Instant>,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unadmitted {
    /// The queue's bound is reached.
    QueueFull {
        waiting: usize,
        /// Model calls until everything admitted is drawn.
        calls_left: u64,
    },
    /// One of its pictures takes more than there is beside the weights, were it alone.
    TooLarge { need_bytes: u64, free_bytes: u64 },
}

/// One model call: jobs of one pipeline and one key. Those in `starting` have not been encoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepBatch {
    pub pipeline: PipelineId,
    pub key: BatchKey,
    /// The one that leads, then the most urgent.
    pub jobs: Vec<JobId>,
    pub starting: Vec<JobId>,
}

/// What a cancelled request leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    pub jobs: Vec<JobId>,
    /// That were computed for these jobs, in vain.
    pub steps: u64,
}
