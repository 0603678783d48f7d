//! What the scheduler promises, as examples and as properties over random arrivals.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn key(side: u32) -> BatchKey {
    BatchKey { input_channels: 4, height: side, width: side, text_length: 77, rows: 2 }
}

fn limits() -> Limits {
    Limits { max_batch: 4, max_running: 1000, max_waiting: 1000, patience: Duration::from_secs(30) }
}

fn request(id: u64, side: u32, steps: u32) -> NewRequest {
    NewRequest { id: RequestId(id), pipeline: PipelineId(0), key: key(side), jobs: 1, steps, deadline: None }
}

#[test]
fn a_near_deadline_goes_first_and_the_rest_in_order_of_arrival() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    let first = scheduler.admit(&request(1, 8, 1), now).unwrap()[0];
    let second = scheduler.admit(&request(2, 16, 1), now).unwrap()[0];
    let urgent = NewRequest { deadline: Some(now + Duration::from_secs(1)), ..request(3, 32, 1) };
    let urgent = scheduler.admit(&urgent, now).unwrap()[0];
    let mut drawn = Vec::new();
    while let Some(batch) = scheduler.next_batch() {
        drawn.extend(scheduler.stepped(&batch.jobs));
    }
    assert_eq!(drawn, [urgent, first, second]);
}

#[test]
fn a_deadline_does_not_go_before_what_has_waited_longer_than_the_patience() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    let old = scheduler.admit(&request(1, 8, 1), now).unwrap();
    let late = now + Duration::from_secs(31);
    let urgent = NewRequest { deadline: Some(late + Duration::from_millis(1)), ..request(2, 16, 1) };
    scheduler.admit(&urgent, late).unwrap();
    assert_eq!(scheduler.next_batch().unwrap().jobs, old);
}

#[test]
fn a_job_joins_a_running_batch_between_steps_and_leaves_when_cancelled() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    let a = scheduler.admit(&request(1, 8, 3), now).unwrap()[0];
    let batch = scheduler.next_batch().unwrap();
    scheduler.stepped(&batch.jobs);
    let b = scheduler.admit(&request(2, 8, 3), now).unwrap()[0];
    let batch = scheduler.next_batch().unwrap();
    assert_eq!((batch.jobs, batch.starting), (vec![a, b], vec![b]));
    assert_eq!(scheduler.cancel(RequestId(1)), [a]);
    assert_eq!(scheduler.next_batch().unwrap().jobs, [b]);
    assert_eq!((scheduler.waiting(), scheduler.running()), (0, 1));
}

#[test]
fn a_full_queue_refuses_with_the_model_calls_that_are_left() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { max_waiting: 2, ..limits() });
    let two = NewRequest { jobs: 2, ..request(1, 8, 10) };
    scheduler.admit(&two, now).unwrap();
    assert_eq!(scheduler.admit(&request(2, 8, 1), now), Err(QueueFull { waiting: 2, calls_left: 10 }));
}

#[test]
fn a_request_larger_than_the_bound_is_taken_by_an_empty_queue() {
    let mut scheduler = Scheduler::new(Limits { max_waiting: 2, ..limits() });
    let ten = NewRequest { jobs: 10, ..request(1, 8, 1) };
    assert_eq!(scheduler.admit(&ten, Instant::now()).unwrap().len(), 10);
}

#[test]
fn a_passed_deadline_is_late_once_whatever_the_number_of_jobs() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    let doomed = NewRequest { jobs: 3, deadline: Some(now + Duration::from_secs(1)), ..request(1, 8, 9) };
    scheduler.admit(&doomed, now).unwrap();
    assert_eq!(scheduler.late(now), []);
    assert_eq!(scheduler.late(now + Duration::from_secs(1)), [RequestId(1)]);
}

/// One event of a random history; time moves on by `wait_ms` before it.
#[derive(Clone, Debug)]
struct Arrival {
    wait_ms: u64,
    pipeline: u64,
    side: u32,
    jobs: u32,
    steps: u32,
    deadline_ms: Option<u64>,
    steps_between: usize,
    cancelled: bool,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let one =
        (0u64..2000, 0u64..2, 1u32..4, 1u32..4, 1u32..6, any::<Option<u16>>(), 0usize..4, prop::bool::weighted(0.1));
    let arrival = one.prop_map(|(wait_ms, pipeline, side, jobs, steps, deadline, steps_between, cancelled)| Arrival {
        wait_ms,
        pipeline,
        side,
        jobs,
        steps,
        deadline_ms: deadline.map(u64::from),
        steps_between,
        cancelled,
    });
    prop::collection::vec(arrival, 1..40)
}

/// Plays a history and checks every batch on the way.
struct Play {
    scheduler: Scheduler,
    limits: Limits,
    now: Instant,
    wanted: BTreeMap<JobId, (RequestId, PipelineId, BatchKey, u32)>,
    taken: BTreeMap<JobId, u32>,
    finished: BTreeSet<JobId>,
    /// Steps of others since admission while not in the batch, and the work that may go first.
    passed_over: BTreeMap<JobId, u64>,
    urgency: BTreeMap<JobId, Urgency>,
}

impl Play {
    fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            limits,
            now: Instant::now(),
            wanted: BTreeMap::new(),
            taken: BTreeMap::new(),
            finished: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            urgency: BTreeMap::new(),
        }
    }

    fn history(mut self, arrivals: &[Arrival]) -> Result<Self, TestCaseError> {
        for (id, arrival) in arrivals.iter().enumerate() {
            self.arrive(id as u64, arrival);
            for _ in 0..arrival.steps_between {
                self.step()?;
            }
        }
        while !self.scheduler.is_idle() {
            self.step()?;
        }
        prop_assert!(self.scheduler.next_batch().is_none());
        prop_assert_eq!((self.scheduler.waiting(), self.scheduler.running()), (0, 0));
        Ok(self)
    }

    fn arrive(&mut self, id: u64, arrival: &Arrival) {
        self.now += Duration::from_millis(arrival.wait_ms);
        let request = NewRequest {
            id: RequestId(id),
            pipeline: PipelineId(arrival.pipeline),
            key: key(arrival.side),
            jobs: arrival.jobs,
            steps: arrival.steps,
            deadline: arrival.deadline_ms.map(|ms| self.now + Duration::from_millis(ms)),
        };
        let Ok(jobs) = self.scheduler.admit(&request, self.now) else { return };
        for job in jobs {
            self.urgency.insert(job, Urgency::new(job, self.now, request.deadline, self.limits.patience));
            self.wanted.insert(job, (request.id, request.pipeline, request.key, request.steps));
        }
        if arrival.cancelled {
            for job in self.scheduler.cancel(request.id) {
                self.wanted.remove(&job);
            }
        }
    }

    fn unfinished(&self) -> impl Iterator<Item = JobId> + '_ {
        self.wanted.keys().copied().filter(|job| !self.finished.contains(job))
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        let running = self.scheduler.running();
        let Some(batch) = self.scheduler.next_batch() else {
            prop_assert_eq!(self.unfinished().count(), 0, "work conservation: something waits and nothing steps");
            return Ok(());
        };
        self.check(&batch, running)?;
        for job in self.unfinished().filter(|job| !batch.jobs.contains(job)).collect::<Vec<_>>() {
            *self.passed_over.entry(job).or_default() += 1;
        }
        for job in &batch.jobs {
            *self.taken.entry(*job).or_default() += 1;
        }
        self.finished.extend(self.scheduler.stepped(&batch.jobs));
        Ok(())
    }

    fn check(&self, batch: &StepBatch, running: usize) -> Result<(), TestCaseError> {
        prop_assert!(!batch.jobs.is_empty() && batch.jobs.len() <= self.limits.max_batch);
        prop_assert!(running + batch.starting.len() <= self.limits.max_running);
        for job in &batch.jobs {
            let (_, pipeline, key, _) = self.wanted[job];
            prop_assert_eq!((pipeline, key), (batch.pipeline, batch.key), "two shapes in one step");
            prop_assert!(!self.finished.contains(job), "{:?} runs twice", job);
            prop_assert_eq!(batch.starting.contains(job), !self.taken.contains_key(job), "encoded once");
        }
        let room = running + batch.starting.len() < self.limits.max_running;
        let left_out = self.unfinished().filter(|job| !batch.jobs.contains(job)).find(|job| {
            let (_, pipeline, key, _) = self.wanted[job];
            (pipeline, key) == (batch.pipeline, batch.key) && (room || self.taken.contains_key(job))
        });
        prop_assert!(left_out.is_none() || batch.jobs.len() == self.limits.max_batch, "a place left empty");
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_job_is_lost_or_drawn_twice(arrivals in arrivals(), max_batch in 1usize..5, max_running in 4usize..9) {
        let play = Play::new(Limits { max_batch, max_running, max_waiting: 12, ..limits() }).history(&arrivals)?;
        for (job, (_, _, _, steps)) in &play.wanted {
            prop_assert_eq!(play.taken.get(job), Some(steps));
        }
    }

    #[test]
    fn nobody_waits_for_more_than_the_work_that_is_due_before(arrivals in arrivals(), max_batch in 1usize..5) {
        let arrivals: Vec<_> = arrivals.into_iter().map(|a| Arrival { cancelled: false, ..a }).collect();
        let play = Play::new(Limits { max_batch, ..limits() }).history(&arrivals)?;
        for (job, waited) in &play.passed_over {
            let before = play.urgency.iter().filter(|(_, urgency)| **urgency < play.urgency[job]);
            let bound: u64 = before.map(|(other, _)| u64::from(play.wanted[other].3)).sum();
            prop_assert!(*waited <= bound, "{:?} was passed over {} times; {} were due before", job, waited, bound);
        }
    }

    #[test]
    fn waiting_never_passes_the_bound_by_more_than_one_request(arrivals in arrivals()) {
        let mut play = Play::new(Limits { max_waiting: 5, ..limits() });
        for (id, arrival) in arrivals.iter().enumerate() {
            play.arrive(id as u64, arrival);
            prop_assert!(play.scheduler.waiting() <= 5);
        }
    }
}
