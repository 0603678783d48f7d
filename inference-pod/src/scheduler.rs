//! Picks the jobs of the next denoise step, from all that wait and run.
//! Knows deadlines, arrival and what may share a step; knows no clock, no tensor and no thread.

mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::pipeline::BatchKey;
use order::Urgency;

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
    /// What a request that names no nearer deadline is taken to have. The bound on waiting: after it, nothing that
    /// arrives later goes first.
    pub patience: Duration,
}

/// What a request asks of the scheduler: all of its jobs have one shape.
#[derive(Clone, Copy, Debug)]
pub struct NewRequest {
    pub id: RequestId,
    pub pipeline: PipelineId,
    pub key: BatchKey,
    pub jobs: u32,
    /// Model calls of each job; a sampler may need more than one for a step of its method.
    pub steps: u32,
    /// After this instant an answer is worth nothing.
    pub deadline: Option<Instant>,
}

/// The queue's bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    pub waiting: usize,
    /// Model calls until everything admitted is drawn.
    pub calls_left: u64,
}

/// One model call: jobs of one pipeline and one key. Those in `starting` have not been encoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepBatch {
    pub pipeline: PipelineId,
    pub key: BatchKey,
    /// The most urgent first.
    pub jobs: Vec<JobId>,
    pub starting: Vec<JobId>,
}

#[derive(Debug)]
struct Job {
    request: RequestId,
    pipeline: PipelineId,
    key: BatchKey,
    steps_left: u32,
    urgency: Urgency,
    deadline: Option<Instant>,
    running: bool,
}

#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    jobs: BTreeMap<JobId, Job>,
    /// The policy: the first that may step leads the next batch.
    order: BTreeMap<Urgency, JobId>,
    next_job: u64,
    running: usize,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        Self { limits, jobs: BTreeMap::new(), order: BTreeMap::new(), next_job: 0, running: 0 }
    }

    pub fn waiting(&self) -> usize {
        self.jobs.len() - self.running
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// True while a request is drawn, or will be, by this pipeline.
    pub fn uses(&self, pipeline: PipelineId) -> bool {
        self.jobs.values().any(|job| job.pipeline == pipeline)
    }

    /// All of the request's jobs or none. An empty queue takes any request, so that a request larger than the bound
    /// is not refused for ever.
    pub fn admit(&mut self, request: &NewRequest, now: Instant) -> Result<Vec<JobId>, QueueFull> {
        let waiting = self.waiting();
        if waiting > 0 && waiting + request.jobs as usize > self.limits.max_waiting {
            return Err(QueueFull { waiting, calls_left: self.calls_left() });
        }
        Ok((0..request.jobs).map(|_| self.add(request, now)).collect())
    }

    fn add(&mut self, request: &NewRequest, now: Instant) -> JobId {
        let NewRequest { id, pipeline, key, jobs: _, steps, deadline } = *request;
        let job = JobId(self.next_job);
        self.next_job += 1;
        let urgency = Urgency::new(job, now, deadline, self.limits.patience);
        self.order.insert(urgency, job);
        self.jobs.insert(
            job,
            Job { request: id, pipeline, key, steps_left: steps.max(1), urgency, deadline, running: false },
        );
        job
    }

    /// The next model call, or `None` when nothing is left to draw. Starts the waiting jobs that it takes; the same
    /// batch comes again until [`Self::stepped`], [`Self::cancel`] or an admission changes something.
    pub fn next_batch(&mut self) -> Option<StepBatch> {
        let mut room = self.limits.max_running.max(1).saturating_sub(self.running);
        let leader = self.order.values().find(|job| room > 0 || self.jobs[*job].running)?;
        let Job { pipeline, key, .. } = self.jobs[leader];
        let (mut jobs, mut starting) = (Vec::new(), Vec::new());
        for id in self.order.values() {
            if jobs.len() == self.limits.max_batch.max(1) {
                break;
            }
            let job = &self.jobs[id];
            if job.pipeline != pipeline || job.key != key || (!job.running && room == 0) {
                continue;
            }
            if !job.running {
                room -= 1;
                starting.push(*id);
            }
            jobs.push(*id);
        }
        for id in &starting {
            self.jobs.get_mut(id).expect("the order names only jobs that exist").running = true;
        }
        self.running += starting.len();
        Some(StepBatch { pipeline, key, jobs, starting })
    }

    /// Books one step of each job; gives those that have taken their last and are forgotten now.
    pub fn stepped(&mut self, jobs: &[JobId]) -> Vec<JobId> {
        let mut finished = Vec::new();
        for id in jobs {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.steps_left -= 1;
            if job.steps_left == 0 {
                self.remove(*id);
                finished.push(*id);
            }
        }
        finished
    }

    /// Forgets a request, wherever its jobs are.
    pub fn cancel(&mut self, request: RequestId) -> Vec<JobId> {
        let gone: Vec<_> = self.jobs.iter().filter(|(_, job)| job.request == request).map(|(id, _)| *id).collect();
        for id in &gone {
            self.remove(*id);
        }
        gone
    }

    /// Requests whose deadline has passed; the caller cancels them.
    pub fn late(&self, now: Instant) -> Vec<RequestId> {
        let late = |job: &&Job| job.deadline.is_some_and(|deadline| deadline <= now);
        let mut requests: Vec<_> = self.jobs.values().filter(late).map(|job| job.request).collect();
        requests.sort_unstable();
        requests.dedup();
        requests
    }

    /// Model calls until everything admitted is drawn, if nothing else comes: jobs that may share a step do.
    pub fn calls_left(&self) -> u64 {
        let mut groups: BTreeMap<(PipelineId, BatchKey), (u64, u64)> = BTreeMap::new();
        for job in self.jobs.values() {
            let (sum, longest) = groups.entry((job.pipeline, job.key)).or_default();
            *sum += u64::from(job.steps_left);
            *longest = (*longest).max(u64::from(job.steps_left));
        }
        let max_batch = self.limits.max_batch.max(1) as u64;
        groups.values().map(|(sum, longest)| sum.div_ceil(max_batch).max(*longest)).sum()
    }

    fn remove(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.order.remove(&job.urgency);
            self.running -= usize::from(job.running);
        }
    }
}
