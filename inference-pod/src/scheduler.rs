//! Picks the jobs of the next denoise step, from all that wait and run.
//! Knows classes, tenants, deadlines, arrival, what may share a step and what fits; knows no clock, tensor or thread.
//!
//! # Policy
//!
//! [`Rank`](order::Rank) is the whole of it: the higher class; in a class the tenant whose turn it is; of a tenant the
//! earliest deadline; then who came first. The first in that order *leads* the next model call, and others of its
//! pipeline and shape fill the places beside it, in the same order. A tenant's turn is its place in a start-time fair
//! queue. When it leads it pays for a *stretch* of as many calls as its job needs, and whichever of its jobs is due
//! first leads those; riding beside another is free. A job of age, one that has waited for `patience`, counts as of the
//! highest class. That was chosen over weights because it is one comparison that everyone can predict, over a turn for
//! each call because the lead changes only when something happens, and over first-in-first-out of the aged because a
//! tenant's backlog must not become a lead.
//!
//! # Bound on waiting
//!
//! Let a job come of age while it waits. Let *S* be the most steps that a job asks for, *T* the number of tenants that
//! have jobs while it waits, and *C* the steps that its own tenant's other jobs still need which are due before it.
//! Then it takes its first step at the latest after
//!
//! > B = C + (T−1)·(C + 3S) model calls,
//!
//! whatever arrives meanwhile, of whatever shape, pipeline, class or deadline, plus *stand-ins*: calls while there is
//! no room (`max_running`, memory) for the first in the order to start. Then nothing starts, so what runs is drawn
//! first: at most `max_running`·S stand-ins before each job that leads before it, and before itself.
//!
//! *Why.* Only the highest class leads while it waits. Of its own tenant only what is due before goes first, since what
//! comes later is due later. Another tenant has at most one open stretch, of S calls at most. A tenant's turn is never
//! more than S ahead of the lane's, so the job leads at turn S + C after now, or sooner; another tenant leads until then
//! at turns that it pays for by the call, and overdraws by one job: C + 2S. Before it is of age a job may be passed
//! over by higher classes and, in its tenant, by nearer deadlines, for `patience` at most.
//!
//! # Preemption
//!
//! A leader that has steps left loses the lead only to a job that starts or comes of age, or at the end of a stretch
//! that its tenant's jobs have shared, which is one that began or came of age in its place. So the lead changes hands
//! at most six times for each job that was admitted, and thrash is bounded by arrivals. What is put aside keeps its
//! latents: `max_running` jobs have some, and their memory is counted.
//!
//! # Memory
//!
//! While a budget is set, what running jobs hold and the next call together never exceed it, by the profile: a batch
//! takes no more jobs than fit, and a job starts only if each running job can still be stepped alone. So nothing waits
//! for ever, and what would not fit alone is refused by [`Scheduler::admit`]. Only news can break it: a measurement
//! above the prior, or a budget that shrinks. Then jobs step one at a time, and what has not begun and no longer fits
//! is named by [`Scheduler::misfits`].

mod job;
mod memory;
mod order;
mod pick;
mod request;
mod shares;
mod step_times;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::pipeline::BatchKey;
use job::Job;
pub use memory::MemoryProfile;
pub use request::{Cancelled, Free, JobId, Limits, NewRequest, PipelineId, RequestId, StepBatch, Unadmitted};
use shares::Shares;
pub use step_times::{Recent, Shape, StepTimes};
pub use work::{Work, duration};

#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    memory: MemoryProfile,
    /// Beside the weights; `None`: no limit.
    free: Option<Free>,
    jobs: BTreeMap<JobId, Job>,
    shares: Shares,
    next_job: u64,
    running: usize,
}

impl Scheduler {
    pub fn new(limits: Limits, memory: MemoryProfile) -> Self {
        let (jobs, shares) = (BTreeMap::new(), Shares::default());
        Self { limits, memory, free: None, jobs, shares, next_job: 0, running: 0 }
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

    /// What there is for pictures on their way; `None`: no limit.
    pub fn set_free(&mut self, free: Option<Free>) {
        self.free = free;
    }

    pub fn memory_mut(&mut self) -> &mut MemoryProfile {
        &mut self.memory
    }

    /// What one picture takes, if that is more than there is.
    pub fn too_large(&self, pipeline: PipelineId, key: BatchKey) -> Option<Unadmitted> {
        let (need_bytes, free_bytes) = (self.alone_bytes(pipeline, key), self.free?.at_best);
        (need_bytes > free_bytes).then_some(Unadmitted::TooLarge { need_bytes, free_bytes })
    }

    /// All of the request's jobs or none. An empty queue takes any request that fits, so that a request larger than the
    /// bound is not refused for ever.
    pub fn admit(&mut self, request: &NewRequest, now: Instant) -> Result<Vec<JobId>, Unadmitted> {
        if let Some(refusal) = self.too_large(request.pipeline, request.key) {
            return Err(refusal);
        }
        let waiting = self.waiting();
        if waiting > 0 && waiting + request.jobs as usize > self.limits.max_waiting {
            return Err(Unadmitted::QueueFull { waiting, calls_left: self.calls_left() });
        }
        Ok((0..request.jobs).map(|place| self.add(request, place, now)).collect())
    }

    fn add(&mut self, request: &NewRequest, place: u32, now: Instant) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(id, Job::new(request, place, now, self.limits.patience));
        id
    }

    /// The job needs all of its steps, for those that it had behind it were lost. It has taken none here.
    pub fn begins_anew(&mut self, id: JobId, steps: u32) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.steps_left = steps.max(1);
        }
    }

    /// Until the request is drawn, of its job that has most.
    pub fn steps_left(&self, request: RequestId) -> u32 {
        let of_it = self.jobs.values().filter(|job| job.request == request);
        of_it.map(|job| job.steps_left).max().unwrap_or(0)
    }

    /// Books one step of each job; gives those that have taken their last and are forgotten now.
    pub fn stepped(&mut self, jobs: &[JobId]) -> Vec<JobId> {
        let mut finished = Vec::new();
        for id in jobs {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.steps_left -= 1;
            job.steps_taken += 1;
            if job.steps_left == 0 {
                self.remove(*id);
                finished.push(*id);
            }
        }
        finished
    }

    /// Forgets a request, wherever its jobs are.
    pub fn cancel(&mut self, request: RequestId) -> Cancelled {
        let of_it = self.jobs.iter().filter(|(_, job)| job.request == request);
        let (jobs, taken): (Vec<_>, Vec<_>) = of_it.map(|(id, job)| (*id, u64::from(job.steps_taken))).unzip();
        for id in &jobs {
            self.remove(*id);
        }
        Cancelled { jobs, steps: taken.iter().sum() }
    }

    /// Requests whose deadline has passed; the caller cancels them.
    pub fn late(&self, now: Instant) -> BTreeSet<RequestId> {
        self.jobs.values().filter(|job| job.is_late(now)).map(|job| job.request).collect()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.jobs.values().filter_map(Job::deadline).min()
    }

    /// Requests that have not begun and can not any more, because there is less memory than when they were admitted.
    pub fn misfits(&self) -> BTreeSet<RequestId> {
        let waiting = self.jobs.values().filter(|job| !job.is_running);
        waiting.filter(|job| self.too_large(job.pipeline, job.key).is_some()).map(|job| job.request).collect()
    }

    fn remove(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.running -= usize::from(job.is_running);
            if !self.jobs.values().any(|other| other.tenant == job.tenant) {
                self.shares.leave(&job.tenant);
            }
        }
    }
}
