//! Counts what clients ask this gateway for, by model: what came within a minute, and what waits without a pod.
//! Knows models and time; does not know who reads it, nor what follows from it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use easel_api::demand::{DemandReport, ModelDemand};
use easel_api::engine;
use easel_planner::ModelId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::admit::Job;

/// Seconds for which what came is counted.
const WINDOW: u64 = 60;

/// Clones count together. Bounded by the models that were asked for within the window.
#[derive(Clone, Debug)]
pub struct Demand {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where the seconds of the window are counted from.
    begun: Instant,
    models: Mutex<BTreeMap<ModelId, Tally>>,
    /// Rings when the first request waits for a model.
    bell: watch::Sender<()>,
}

#[derive(Debug)]
struct Tally {
    waiting: u32,
    waiting_calls: u64,
    /// One a second, each in the place of the one that has left the window.
    buckets: [Bucket; WINDOW as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    second: u64,
    requests: u32,
    calls: u64,
}

/// One request that waits without a pod. Counted until it is dropped.
#[derive(Debug)]
pub(super) struct Waits {
    demand: Demand,
    model: ModelId,
    calls: u64,
}

impl Demand {
    pub(crate) fn new() -> Self {
        let (begun, models, bell) = (Instant::now(), Mutex::default(), watch::Sender::new(()));
        Self { shared: Arc::new(Shared { begun, models, bell }) }
    }

    pub(super) fn admitted(&self, job: &Job, now: Instant) {
        self.came(&job.model, calls(job), now);
    }

    pub(super) fn waits(&self, job: &Job) -> Waits {
        self.waits_for(&job.model, calls(job), Instant::now())
    }

    /// Changes whenever a model is waited for that nobody waited for before.
    pub fn bell(&self) -> watch::Receiver<()> {
        self.shared.bell.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn ring(&self) {
        self.shared.bell.send_replace(());
    }

    /// What is asked now. Forgets models that nobody asks for any more.
    pub fn report(&self, now: Instant) -> DemandReport {
        let second = self.second(now);
        let mut models = self.models();
        models.retain(|_, tally| tally.is_asked_for(second));
        DemandReport { models: models.iter().map(|(id, tally)| tally.report(id, second)).collect() }
    }

    fn came(&self, model: &ModelId, calls: u64, now: Instant) {
        let second = self.second(now);
        self.with(model, second, |tally| {
            let bucket = &mut tally.buckets[(second % WINDOW) as usize];
            if bucket.second != second {
                *bucket = Bucket { second, ..Bucket::default() };
            }
            bucket.requests = bucket.requests.saturating_add(1);
            bucket.calls = bucket.calls.saturating_add(calls);
        });
    }

    fn waits_for(&self, model: &ModelId, calls: u64, now: Instant) -> Waits {
        let first = self.with(model, self.second(now), |tally| {
            tally.waiting += 1;
            tally.waiting_calls += calls;
            tally.waiting == 1
        });
        if first {
            self.shared.bell.send_replace(());
        }
        Waits { demand: self.clone(), model: model.clone(), calls }
    }

    fn with<T>(&self, model: &ModelId, second: u64, change: impl FnOnce(&mut Tally) -> T) -> T {
        let mut models = self.models();
        if !models.contains_key(model) {
            // A gateway that nobody listens to must not collect models for ever.
            models.retain(|_, tally| tally.is_asked_for(second));
        }
        change(models.entry(model.clone()).or_insert_with(Tally::new))
    }

    /// From 1: a bucket of second 0 is one that was never used.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.shared.begun).as_secs() + 1
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelId, Tally>> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.shared.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn new() -> Self {
        Self { waiting: 0, waiting_calls: 0, buckets: [Bucket::default(); WINDOW as usize] }
    }

    fn recent(&self, second: u64) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().filter(move |bucket| bucket.requests > 0 && bucket.second + WINDOW > second)
    }

    fn is_asked_for(&self, second: u64) -> bool {
        self.waiting > 0 || self.recent(second).next().is_some()
    }

    fn report(&self, id: &ModelId, second: u64) -> ModelDemand {
        let Self { waiting, waiting_calls, buckets: _ } = self;
        ModelDemand {
            id: engine::ModelId(id.as_str().to_owned()),
            waiting: *waiting,
            waiting_calls: *waiting_calls,
            arrived: self.recent(second).fold(0, |sum, bucket| sum.saturating_add(bucket.requests)),
            arrived_calls: self.recent(second).fold(0, |sum, bucket| sum.saturating_add(bucket.calls)),
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.demand.models().entry(self.model.clone()) {
            let tally = entry.get_mut();
            tally.waiting = tally.waiting.saturating_sub(1);
            tally.waiting_calls = tally.waiting_calls.saturating_sub(self.calls);
        }
    }
}

fn calls(job: &Job) -> u64 {
    u64::from(job.steps) * u64::from(job.pictures)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(format!("demo/{name}"))
    }

    /// Of the one model that is asked for: waiting and its calls, arrived and its calls.
    fn asked(demand: &Demand, now: Instant) -> Option<(u32, u64, u32, u64)> {
        let report = demand.report(now);
        assert!(report.models.len() <= 1);
        let found = report.models.first()?;
        Some((found.waiting, found.waiting_calls, found.arrived, found.arrived_calls))
    }

    #[tokio::test]
    async fn what_came_counts_for_a_minute_and_then_its_model_is_forgotten() {
        let demand = Demand::new();
        let at = |second: u64| demand.shared.begun + Duration::from_secs(second);
        demand.came(&model("a"), 30, at(0));
        demand.came(&model("a"), 10, at(0));
        demand.came(&model("a"), 5, at(59));
        assert_eq!(asked(&demand, at(59)), Some((0, 0, 3, 45)));
        assert_eq!(asked(&demand, at(60)), Some((0, 0, 1, 5)));
        assert_eq!(asked(&demand, at(118)), Some((0, 0, 1, 5)));
        assert_eq!(asked(&demand, at(119)), None);
        assert!(demand.models().is_empty());
    }

    #[tokio::test]
    async fn a_second_takes_the_place_of_the_one_a_minute_before() {
        let demand = Demand::new();
        let at = |second: u64| demand.shared.begun + Duration::from_secs(second);
        (0..600).for_each(|second| demand.came(&model("a"), 2, at(second)));
        assert_eq!(asked(&demand, at(599)), Some((0, 0, 60, 120)));
    }

    #[tokio::test]
    async fn one_that_waits_is_counted_until_its_guard_goes_however_long_that_is() {
        let demand = Demand::new();
        let begun = demand.shared.begun;
        let (first, second) = (demand.waits_for(&model("a"), 30, begun), demand.waits_for(&model("a"), 8, begun));
        let later = begun + Duration::from_mins(10);
        assert_eq!(asked(&demand, later), Some((2, 38, 0, 0)));
        drop(first);
        assert_eq!(asked(&demand, later), Some((1, 8, 0, 0)));
        drop(second);
        assert_eq!(asked(&demand, later), None);
    }

    #[tokio::test]
    async fn the_bell_rings_for_the_first_that_waits_for_a_model_only() {
        let demand = Demand::new();
        let (mut bell, now) = (demand.bell(), Instant::now());
        let rings = |bell: &mut watch::Receiver<()>| {
            let rung = bell.has_changed().unwrap();
            bell.mark_unchanged();
            rung
        };
        demand.came(&model("a"), 30, now);
        assert!(!rings(&mut bell));
        let first = demand.waits_for(&model("a"), 30, now);
        assert!(rings(&mut bell));
        let second = demand.waits_for(&model("a"), 30, now);
        assert!(!rings(&mut bell));
        let _other = demand.waits_for(&model("b"), 30, now);
        assert!(rings(&mut bell));
        drop((first, second));
        assert!(!rings(&mut bell));
        let _again = demand.waits_for(&model("a"), 30, now);
        assert!(rings(&mut bell));
    }

    #[tokio::test]
    async fn a_gateway_that_nobody_listens_to_forgets_models_too() {
        let demand = Demand::new();
        let at = |second: u64| demand.shared.begun + Duration::from_secs(second);
        for number in 0..100 {
            demand.came(&model(&number.to_string()), 1, at(number * 60));
        }
        assert_eq!(demand.models().len(), 1);
    }
}
