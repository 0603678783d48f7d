//! The next batch: who leads, who rides along, and what fits.

use std::time::Instant;

use super::job::Job;
use super::order::Rank;
use super::{JobId, PipelineId, Scheduler, StepBatch};
use crate::pipeline::BatchKey;

/// Who leads the next call.
pub(super) struct Leader {
    id: JobId,
    /// There is no room for the first in the order, so one that runs goes on, and nothing starts before that one.
    pub(super) stands_in: bool,
}

impl Scheduler {
    /// The next model call, or `None` when nothing is left that can be drawn. Starts the waiting jobs that it takes;
    /// the caller tells how it ended by [`Self::stepped`] or [`Self::cancel`].
    pub fn next_batch(&mut self, now: Instant) -> Option<StepBatch> {
        let order = self.order(now);
        let Leader { id, stands_in } = self.leader(&order)?;
        let lane = order.iter().find(|rank| rank.job == id)?.lane;
        let waits = !self.jobs.get(&id)?.is_running;
        if waits {
            self.start(id);
        }
        if !stands_in {
            let job = self.jobs.get(&id)?;
            self.shares.lead(lane, &job.tenant, job.steps_left);
        }
        let mut batch = self.fill(id, stands_in, &order)?;
        if waits {
            batch.starting.insert(0, id);
        }
        Some(batch)
    }

    pub(super) fn order(&self, now: Instant) -> Vec<Rank> {
        let rank = |(id, job): (&JobId, &Job)| job.rank(*id, &self.shares, self.limits.patience, now);
        let mut order: Vec<_> = self.jobs.iter().map(rank).collect();
        order.sort_unstable();
        order
    }

    /// The first in the order; if there is no room for it, the first that runs; if none does, the first that fits.
    pub(super) fn leader(&self, order: &[Rank]) -> Option<Leader> {
        let first = order.first()?.job;
        let may_lead = |rank: &&Rank| {
            let job = &self.jobs[&rank.job];
            job.is_running || ((rank.job == first || self.running == 0) && self.may_start(job, 1))
        };
        let id = order.iter().find(may_lead)?.job;
        Some(Leader { id, stands_in: id != first })
    }

    fn fill(&mut self, leader: JobId, stands_in: bool, order: &[Rank]) -> Option<StepBatch> {
        let (pipeline, key) = self.jobs.get(&leader)?.shape();
        let (mut jobs, mut starting, mut may_start) = (vec![leader], Vec::new(), !stands_in);
        for Rank { job: id, .. } in order {
            if jobs.len() >= self.limits.max_batch {
                break;
            }
            let Some(job) = self.jobs.get(id).filter(|job| *id != leader && job.shape() == (pipeline, key)) else {
                continue;
            };
            let places = jobs.len() + 1;
            if job.is_running {
                if !self.fits(self.running_bytes() + self.memory.call_bytes(pipeline, key, places)) {
                    break;
                }
            } else {
                may_start = may_start && self.may_start(job, places);
                if !may_start {
                    continue; // what runs already may still ride along
                }
                self.start(*id);
                starting.push(*id);
            }
            jobs.push(*id);
        }
        Some(StepBatch { pipeline, key, jobs, starting })
    }

    fn start(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.is_running = true;
            self.running += 1;
        }
    }

    /// There is a place among the running, and memory for a call of so many jobs, this one included; and for each that
    /// runs to be stepped alone later.
    fn may_start(&self, job: &Job, jobs: usize) -> bool {
        if self.running >= self.limits.max_running.max(1) {
            return false;
        }
        let held = self.running_bytes() + self.memory.held_bytes(job.key);
        let call = self.memory.call_bytes(job.pipeline, job.key, jobs);
        self.fits(held + call.max(self.running_call_bytes()))
    }

    fn fits(&self, bytes: u64) -> bool {
        self.free.is_none_or(|free| bytes <= free.now)
    }

    fn running_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.is_running)
    }

    /// What those that have begun hold between calls.
    fn running_bytes(&self) -> u64 {
        self.running_jobs().map(|job| self.memory.held_bytes(job.key)).sum()
    }

    /// The largest call that must stay possible.
    fn running_call_bytes(&self) -> u64 {
        self.running_jobs().map(|job| self.memory.call_bytes(job.pipeline, job.key, 1)).max().unwrap_or_default()
    }

    pub(super) fn alone_bytes(&self, pipeline: PipelineId, key: BatchKey) -> u64 {
        self.memory.held_bytes(key) + self.memory.call_bytes(pipeline, key, 1)
    }

    /// With nothing else in memory.
    pub(super) fn largest_batch(&self, pipeline: PipelineId, key: BatchKey) -> usize {
        let bytes =
            |jobs: usize| self.memory.held_bytes(key) * jobs as u64 + self.memory.call_bytes(pipeline, key, jobs);
        (1..=self.limits.max_batch).rev().find(|jobs| self.fits(bytes(*jobs))).unwrap_or(1)
    }

    /// That what was admitted can't do without: weights that come must leave it.
    pub fn reserved_bytes(&self) -> u64 {
        let waiting = self.jobs.values().filter(|job| !job.is_running);
        let alone = waiting.map(|job| self.alone_bytes(job.pipeline, job.key)).max().unwrap_or_default();
        alone.max(self.running_bytes() + self.running_call_bytes())
    }

    /// What the last batch takes by the profile, while its call lasts.
    pub fn batch_bytes(&self, batch: &StepBatch) -> u64 {
        self.running_bytes() + self.memory.call_bytes(batch.pipeline, batch.key, batch.jobs.len())
    }
}
