//! What came of a run, in the numbers that people decide by. Counts; judges nothing.

use std::collections::BTreeMap;

use crate::simulate::world::{Fate, World};
use crate::time::Span;
use crate::units::MicroUsd;

/// Fewer requests than this say nothing of one model: they are counted together, as the long tail.
const ENOUGH: u32 = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub policy: String,
    pub requests: u64,
    /// Share of all requests that were drawn by their deadline. Refused, late and lost ones are misses.
    pub slo_attainment: f64,
    /// The same, each weighted by its work.
    pub weighted_attainment: f64,
    pub goodput_rps: f64,
    /// Of those that were drawn.
    pub p50: Span,
    pub p95: Span,
    pub p99: Span,
    pub mean: Span,
    /// Loads of a checkpoint that a request waited for, and such loads for each drawn request.
    pub switches: u64,
    pub switch_share: f64,
    /// Loads ahead of demand.
    pub fetches: u64,
    pub put_aside: u64,
    /// Of replica-seconds: drawing or loading; and loading alone.
    pub gpu_busy_share: f64,
    pub load_share: f64,
    pub gpu_hours: f64,
    pub cost: MicroUsd,
    pub drawing_cost: MicroUsd,
    pub loading_cost: MicroUsd,
    pub idle_cost: MicroUsd,
    pub images_in_slo: u64,
    pub usd_per_image_in_slo: f64,
    pub rejected: u64,
    pub late: u64,
    pub lost: u64,
    /// Faults that hit a replica, and requests that were being drawn by one that was lost: each was drawn again.
    pub faults: u64,
    pub retried: u64,
    pub by_images: Vec<Bucket>,
    /// Models with at least 100 requests, the worst first.
    pub models: Vec<ModelShare>,
    /// All others together.
    pub tail: Bucket,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Images a request, where that is the kind.
    pub images: u32,
    pub requests: u32,
    pub in_slo: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelShare {
    pub model: String,
    pub share: Bucket,
}

impl Bucket {
    pub fn attainment(&self) -> f64 {
        f64::from(self.in_slo) / f64::from(self.requests.max(1))
    }

    fn count(&mut self, in_slo: bool) {
        self.requests += 1;
        self.in_slo += u32::from(in_slo);
    }
}

pub(super) fn outcome(world: &World<'_>, policy: &str) -> Outcome {
    let tally = Tally::of(world);
    let bill = Bill::of(world);
    let requests = world.tasks.len() as u64;
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let drawn = tally.latencies.len() as f64;
    let (models, tail) = tally.fairness(world);
    Outcome {
        policy: policy.into(),
        requests,
        slo_attainment: ratio(tally.in_slo as f64, requests as f64),
        weighted_attainment: ratio(tally.work_in_slo, tally.work),
        goodput_rps: ratio(tally.in_slo as f64, world.now.secs()),
        p50: tally.quantile(0.5),
        p95: tally.quantile(0.95),
        p99: tally.quantile(0.99),
        mean: Span::from_secs(ratio(tally.latencies.iter().map(|span| span.secs()).sum(), drawn)),
        switches: world.switches,
        switch_share: ratio(world.switches as f64, drawn),
        fetches: world.fetches,
        put_aside: world.put_aside,
        gpu_busy_share: ratio(bill.drawing + bill.loading, bill.existed),
        load_share: ratio(bill.loading, bill.existed),
        gpu_hours: bill.existed / 3600.0,
        cost: MicroUsd::new(bill.cost),
        drawing_cost: MicroUsd::new(bill.drawing_cost),
        loading_cost: MicroUsd::new(bill.loading_cost),
        idle_cost: MicroUsd::new(bill.idle_cost),
        images_in_slo: tally.images_in_slo,
        usd_per_image_in_slo: ratio(bill.cost as f64 / 1e6, tally.images_in_slo as f64),
        rejected: tally.rejected,
        late: tally.late,
        lost: tally.lost,
        faults: world.faults_hit,
        retried: world.retried,
        by_images: tally.by_images.values().copied().collect(),
        models,
        tail,
    }
}

#[derive(Debug, Default)]
struct Tally {
    in_slo: u64,
    rejected: u64,
    late: u64,
    lost: u64,
    images_in_slo: u64,
    work: f64,
    work_in_slo: f64,
    /// Sorted.
    latencies: Vec<Span>,
    by_images: BTreeMap<u32, Bucket>,
    by_model: BTreeMap<u32, Bucket>,
}

impl Tally {
    fn of(world: &World<'_>) -> Self {
        let mut tally = Self::default();
        for (task, request) in world.tasks.iter().zip(&world.load.requests) {
            let in_slo = match task.fate {
                Fate::Drawn(at) => {
                    tally.latencies.push(at.since(request.arrival));
                    tally.late += u64::from(at > request.deadline);
                    at <= request.deadline
                }
                Fate::Refused => {
                    tally.rejected += 1;
                    false
                }
                Fate::Underway => {
                    tally.lost += 1;
                    false
                }
            };
            tally.work += request.work.secs();
            if in_slo {
                tally.in_slo += 1;
                tally.images_in_slo += u64::from(request.images);
                tally.work_in_slo += request.work.secs();
            }
            let kind = Bucket { images: request.images, ..Bucket::default() };
            tally.by_images.entry(request.images).or_insert(kind).count(in_slo);
            tally.by_model.entry(request.model.0).or_default().count(in_slo);
        }
        tally.latencies.sort_unstable();
        tally
    }

    fn quantile(&self, share: f64) -> Span {
        let at = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn fairness(&self, world: &World<'_>) -> (Vec<ModelShare>, Bucket) {
        let (mut models, mut tail) = (Vec::new(), Bucket::default());
        for (model, share) in &self.by_model {
            if share.requests >= ENOUGH {
                models.push(ModelShare { model: world.load.models[*model as usize].clone(), share: *share });
            } else {
                tail.requests += share.requests;
                tail.in_slo += share.in_slo;
            }
        }
        models.sort_by(|a, b| a.share.attainment().total_cmp(&b.share.attainment()));
        (models, tail)
    }
}

/// Seconds and millionths of a dollar.
#[derive(Debug, Default)]
struct Bill {
    existed: f64,
    drawing: f64,
    loading: f64,
    cost: u64,
    drawing_cost: u64,
    loading_cost: u64,
    idle_cost: u64,
}

impl Bill {
    fn of(world: &World<'_>) -> Self {
        let mut bill = Self::default();
        for machine in &world.machines {
            let price = world.scenario.pools[machine.pool].price;
            let books = machine.books;
            bill.existed += books.existed.secs();
            bill.drawing += books.drawing.secs();
            bill.loading += books.loading.secs();
            bill.cost += price.cost(books.existed.into()).micros();
            bill.drawing_cost += price.cost(books.drawing.into()).micros();
            bill.loading_cost += price.cost(books.loading.into()).micros();
            bill.idle_cost += price.cost(books.idle().into()).micros();
        }
        bill
    }
}
