//! What is left to do, in model calls, and how long that takes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::job::Job;
use super::step_times::{Shape, StepTimes};
use super::{PipelineId, Scheduler};
use crate::pipeline::BatchKey;

/// Model calls of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub shape: Shape,
    pub calls: u64,
}

#[derive(Default)]
struct Group {
    jobs: usize,
    steps: u64,
    longest: u64,
}

impl Scheduler {
    /// Until everything admitted is drawn, if nothing else comes. An upper bound where neither `max_running` nor
    /// memory keeps a job out of a batch that has a place: a call without the job that ends last is full, so there are
    /// at most (steps of the others) / batch of them, rounded down. Where they do, the steps of all jobs bound it.
    pub fn work_left(&self) -> Vec<Work> {
        self.work(|_| true)
    }

    /// Of those that have begun.
    pub fn work_running(&self) -> Vec<Work> {
        self.work(|job| job.is_running)
    }

    pub fn calls_left(&self) -> u64 {
        self.work_left().iter().map(|work| work.calls).sum()
    }

    fn work(&self, counts: impl Fn(&Job) -> bool) -> Vec<Work> {
        let mut groups: BTreeMap<(PipelineId, BatchKey), Group> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| counts(job)) {
            let group = groups.entry(job.shape()).or_default();
            group.jobs += 1;
            group.steps += u64::from(job.steps_left);
            group.longest = group.longest.max(u64::from(job.steps_left));
        }
        groups.into_iter().map(|((pipeline, key), group)| self.work_of(pipeline, key, &group)).collect()
    }

    fn work_of(&self, pipeline: PipelineId, key: BatchKey, group: &Group) -> Work {
        let batch = self.largest_batch(pipeline, key);
        let without_last = if group.jobs <= batch { 0 } else { (group.steps - group.longest) / batch as u64 };
        let calls = without_last + group.longest;
        Work { shape: Shape { pipeline, key, jobs: batch.min(group.jobs) }, calls }
    }
}

/// As long as it took lately; zero before anything was measured.
pub fn duration(work: &[Work], times: &StepTimes) -> Duration {
    let each = |work: &Work| times.estimate(work.shape).unwrap_or_default().mul_f64(work.calls as f64);
    work.iter().map(each).sum()
}
