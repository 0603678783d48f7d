//! Plays random histories of arrivals, steps and cancellations, and checks every batch on the way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::scheduler::order::Due;

/// What a job of these histories asks at most.
pub(super) const LONGEST: u32 = 6;
pub(super) const TENANTS: u64 = 3;
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// One event of a random history; time moves on by `wait_ms` before it.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    wait_ms: u64,
    tenant: u64,
    class: Priority,
    pipeline: u64,
    side: u32,
    jobs: u32,
    steps: u32,
    deadline_ms: Option<u16>,
    steps_between: usize,
    /// An earlier request, or itself.
    cancels: Option<prop::sample::Index>,
}

pub(super) fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let sender = (0..TENANTS, prop::sample::select(Priority::ALL.to_vec()));
    let work = (0u64..2, 1u32..5, 1u32..4, 1..=LONGEST);
    let cancels = prop::option::weighted(0.15, any::<prop::sample::Index>());
    let one = (0u64..2000, sender, work, any::<Option<u16>>(), 0usize..4, cancels);
    let arrival = one.prop_map(|(wait_ms, (tenant, class), work, deadline_ms, steps_between, cancels)| {
        let (pipeline, side, jobs, steps) = work;
        Arrival { wait_ms, tenant, class, pipeline, side, jobs, steps, deadline_ms, steps_between, cancels }
    });
    prop::collection::vec(arrival, 1..40)
}

/// The world in which a history is played.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) limits: Limits,
    pub(super) free: Option<u64>,
    /// Of every step.
    pub(super) step_ms: u64,
}

pub(super) fn settings() -> impl Strategy<Value = Setting> {
    // The largest job holds 1,024 bytes and takes 1,024 in a call.
    let free = prop::option::of(2048u64..9000);
    (1usize..5, 1usize..9, free, 0u64..3000).prop_map(|(max_batch, max_running, free, step_ms)| {
        let limits = Limits { max_batch, max_running, max_waiting: 20, patience: PATIENCE };
        Setting { limits, free, step_ms }
    })
}

pub(super) struct Wanted {
    request: NewRequest,
    arrival: Instant,
    due: Due,
}

/// A job that came of age while it waited.
struct Aged {
    bound: u64,
    calls: u64,
    stand_ins: u64,
    leaders: BTreeSet<JobId>,
}

pub(super) struct Play {
    pub(super) scheduler: Scheduler,
    setting: Setting,
    now: Instant,
    pub(super) wanted: BTreeMap<JobId, Wanted>,
    pub(super) taken: BTreeMap<JobId, u32>,
    pub(super) finished: BTreeSet<JobId>,
    pub(super) cancelled: BTreeSet<JobId>,
    aged: BTreeMap<JobId, Aged>,
    leader: Option<JobId>,
    /// How often the lead changed hands before its holder's end.
    pub(super) takeovers: usize,
    pub(super) calls: Vec<Shape>,
}

impl Wanted {
    pub(super) fn steps(&self) -> u32 {
        self.request.steps
    }

    fn shape(&self) -> (PipelineId, BatchKey) {
        (self.request.pipeline, self.request.key)
    }
}

impl Play {
    pub(super) fn new(setting: Setting) -> Self {
        let mut scheduler = Scheduler::new(setting.limits, MemoryProfile::new(32));
        scheduler.set_free(setting.free.map(|free| Free { now: free, at_best: free }));
        let now = Instant::now();
        let (wanted, taken, finished) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (cancelled, aged) = (BTreeSet::new(), BTreeMap::new());
        let (leader, takeovers, calls) = (None, 0, Vec::new());
        Self { scheduler, setting, now, wanted, taken, finished, cancelled, aged, leader, takeovers, calls }
    }

    pub(super) fn history(mut self, arrivals: &[Arrival]) -> Result<Self, TestCaseError> {
        for (id, arrival) in arrivals.iter().enumerate() {
            self.arrive(id, arrival)?;
            for _ in 0..arrival.steps_between {
                self.step()?;
            }
        }
        Ok(self)
    }

    pub(super) fn until_the_end(mut self) -> Result<Self, TestCaseError> {
        while !self.scheduler.is_idle() {
            self.step()?;
        }
        prop_assert!(self.scheduler.next_batch(self.now).is_none());
        prop_assert_eq!((self.scheduler.waiting(), self.scheduler.running()), (0, 0));
        Ok(self)
    }

    pub(super) fn arrive(&mut self, id: usize, arrival: &Arrival) -> Result<(), TestCaseError> {
        self.now += Duration::from_millis(arrival.wait_ms);
        let request = NewRequest {
            id: RequestId(id as u64),
            tenant: Tenant::new(&arrival.tenant.to_string()),
            class: arrival.class,
            pipeline: PipelineId(arrival.pipeline),
            key: key(arrival.side),
            jobs: arrival.jobs,
            taken: Vec::new(),
            steps: arrival.steps,
            deadline: arrival.deadline_ms.map(|ms| self.now + Duration::from_millis(ms.into())),
        };
        if let Ok(jobs) = self.scheduler.admit(&request, self.now) {
            let due = Due::new(self.now, request.deadline, PATIENCE);
            for job in jobs {
                self.wanted.insert(job, Wanted { request: request.clone(), arrival: self.now, due });
            }
        }
        let Some(index) = &arrival.cancels else { return Ok(()) };
        self.cancel(RequestId(index.index(id + 1) as u64))
    }

    fn cancel(&mut self, request: RequestId) -> Result<(), TestCaseError> {
        let of_it = |job: &JobId| self.wanted[job].request.id == request;
        let expected: Vec<_> = self.unfinished().filter(of_it).collect();
        let steps = expected.iter().filter_map(|job| self.taken.get(job)).map(|steps| u64::from(*steps)).sum();
        prop_assert_eq!(self.scheduler.cancel(request), Cancelled { jobs: expected.clone(), steps });
        self.cancelled.extend(expected);
        Ok(())
    }

    fn unfinished(&self) -> impl Iterator<Item = JobId> + '_ {
        let gone = |job: &JobId| self.finished.contains(job) || self.cancelled.contains(job);
        self.wanted.keys().copied().filter(move |job| !gone(job))
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        self.come_of_age();
        let running = self.scheduler.running();
        let stands_in = self.scheduler.leader(&self.scheduler.order(self.now)).is_some_and(|leader| leader.stands_in);
        let Some(batch) = self.scheduler.next_batch(self.now) else {
            prop_assert_eq!(self.unfinished().count(), 0, "work conservation: something waits and nothing steps");
            return Ok(());
        };
        self.check(&batch, running)?;
        self.book(&batch, stands_in)?;
        for job in &batch.jobs {
            *self.taken.entry(*job).or_default() += 1;
        }
        self.finished.extend(self.scheduler.stepped(&batch.jobs));
        self.now += Duration::from_millis(self.setting.step_ms);
        Ok(())
    }

    fn check(&self, batch: &StepBatch, running: usize) -> Result<(), TestCaseError> {
        prop_assert!(!batch.jobs.is_empty() && batch.jobs.len() <= self.setting.limits.max_batch);
        prop_assert!(running + batch.starting.len() <= self.setting.limits.max_running);
        prop_assert_eq!(running + batch.starting.len(), self.scheduler.running());
        let bytes = self.scheduler.batch_bytes(batch);
        prop_assert!(self.setting.free.is_none_or(|free| bytes <= free), "{} bytes of {:?}", bytes, self.setting.free);
        let distinct: BTreeSet<_> = batch.jobs.iter().collect();
        prop_assert_eq!(distinct.len(), batch.jobs.len(), "a job twice in a step");
        for job in &batch.jobs {
            prop_assert_eq!(self.wanted[job].shape(), (batch.pipeline, batch.key), "two shapes in one step");
            prop_assert!(!self.finished.contains(job), "{:?} runs twice", job);
            prop_assert!(!self.cancelled.contains(job), "{:?} was cancelled", job);
            prop_assert_eq!(batch.starting.contains(job), !self.taken.contains_key(job), "encoded once");
        }
        Ok(())
    }

    /// Those that wait and have just come of age, with what the theorem says of them.
    fn come_of_age(&mut self) {
        let steps_left = |job: &JobId| u64::from(self.wanted[job].steps() - self.taken.get(job).unwrap_or(&0));
        let mut aged = Vec::new();
        for job in self.unfinished().filter(|job| !self.taken.contains_key(job) && !self.aged.contains_key(job)) {
            let Wanted { request, arrival, due } = &self.wanted[&job];
            if self.now < *arrival + PATIENCE {
                continue;
            }
            let before = |other: &JobId| {
                let other = (&self.wanted[other], *other);
                other.0.request.tenant == request.tenant && (other.0.due, other.1) < (*due, job)
            };
            let own: u64 = self.unfinished().filter(before).map(|other| steps_left(&other)).sum();
            let bound = own + (TENANTS - 1) * (own + 3 * u64::from(LONGEST));
            aged.push((job, Aged { bound, calls: 0, stand_ins: 0, leaders: BTreeSet::new() }));
        }
        self.aged.extend(aged);
    }

    /// Who led, and who was passed over.
    fn book(&mut self, batch: &StepBatch, stands_in: bool) -> Result<(), TestCaseError> {
        let (leader, drain) = (batch.jobs[0], self.setting.limits.max_running as u64 * u64::from(LONGEST));
        let former = self.leader.replace(leader).filter(|former| *former != leader);
        if former.is_some_and(|former| self.unfinished().any(|job| job == former)) {
            self.takeovers += 1;
        }
        let waits: Vec<_> = self.unfinished().filter(|job| !self.taken.contains_key(job)).collect();
        for (job, aged) in self.aged.iter_mut().filter(|(job, _)| waits.contains(job) && !batch.jobs.contains(job)) {
            if stands_in {
                aged.stand_ins += 1;
            } else {
                aged.calls += 1;
                aged.leaders.insert(leader);
            }
            prop_assert!(aged.calls <= aged.bound, "{:?}: {} calls; the bound is {}", job, aged.calls, aged.bound);
            let drains = drain * (aged.leaders.len() as u64 + 1);
            prop_assert!(aged.stand_ins <= drains, "{:?}: {} stand-ins; the bound is {}", job, aged.stand_ins, drains);
        }
        self.calls.push(Shape { pipeline: batch.pipeline, key: batch.key, jobs: batch.jobs.len() });
        Ok(())
    }

    /// How many jobs have waited until they were of age.
    pub(super) fn came_of_age(&self) -> usize {
        self.aged.len()
    }
}
