//! What is simulated: pools, how long drawing and loading take, deadlines and arrivals.
//! Holds values that have been checked; whoever reads files brings them.

use crate::simulate::Faults;
use crate::snapshot::Capacity;
use crate::time::Span;
use crate::units::MicroUsdPerHour;

#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub pools: Vec<PoolSpec>,
    pub execution: Execution,
    /// One checkpoint to the device, whatever the speed.
    pub load_from_store: Span,
    pub load_from_host: Span,
    /// One adapter.
    pub load_adapter: Span,
    pub slo: Slo,
    pub arrivals: Arrivals,
    /// For arrivals that follow one.
    pub curve: Curve,
    /// How many requests of the trace.
    pub requests: usize,
    pub faults: Faults,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    pub name: String,
    pub min: u32,
    pub max: u32,
    pub speed: f64,
    pub price: MicroUsdPerHour,
    pub capacity: Capacity,
    /// Checkpoints on the device, and in the host's memory.
    pub resident_slots: usize,
    pub host_slots: usize,
    /// From the order of a replica until it can load.
    pub start: Span,
}

/// Seconds of drawing at speed 1: `seconds × steps / 30 × (first + (1 - first) × images)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Execution {
    pub seconds_at_30_steps: f64,
    pub first_image_share: f64,
}

/// Deadline: arrival + factor × drawing at speed 1 + slack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    pub factor: f64,
    pub slack: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrivals {
    pub process: Process,
    /// Work that arrives ÷ what the fleet can draw; switching is not counted.
    pub rho: f64,
}

/// How the rate of arrivals goes over a day; only its shape counts, for it is scaled to a mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Seconds since the start, rising from 0, and the rate there; straight between them, and round again after the last.
    pub points: Vec<(f64, f64)>,
    /// Requests a second on average.
    pub mean_rps: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// When the trace says.
    Trace,
    Poisson,
    /// Poisson with a rate that follows a curve.
    Curve,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    #[error("{field} is {value}; it must be {must}")]
    Value { field: String, value: String, must: &'static str },
    #[error("there is no pool; list at least one under pools")]
    NoPool,
    #[error("the trace has no row with status succeed")]
    NoRequest,
}

impl Execution {
    pub fn work(&self, steps: u32, images: u32) -> Span {
        let first = self.first_image_share;
        let images = first + (1.0 - first) * f64::from(images);
        Span::from_secs(self.seconds_at_30_steps * f64::from(steps) / 30.0 * images)
    }
}

impl Scenario {
    /// Every number that has a bound, by its name in the file.
    pub fn check(&self) -> Result<(), ScenarioError> {
        if self.pools.is_empty() {
            return Err(ScenarioError::NoPool);
        }
        for (at, pool) in self.pools.iter().enumerate() {
            let field = |name: &str| format!("pools[{at}].{name}");
            positive(field("speed"), pool.speed)?;
            bound(field("resident_slots"), pool.resident_slots, (1..=12).contains(&pool.resident_slots), "1 to 12")?;
            bound(field("host_slots"), pool.host_slots, pool.host_slots <= 12, "0 to 12")?;
            bound(field("replicas"), pool.max, pool.min <= pool.max && pool.max <= 10_000, "min ≤ max ≤ 10000")?;
        }
        bound("pools", "without a replica", self.pools.iter().any(|pool| pool.max > 0), "able to have one")?;
        positive("execution.seconds_at_30_steps_1_image", self.execution.seconds_at_30_steps)?;
        let share = self.execution.first_image_share;
        bound("execution.first_image_share", share, (0.0..=1.0).contains(&share), "0 to 1")?;
        positive("slo.factor", self.slo.factor)?;
        bound("requests", self.requests, self.requests > 0, "at least 1")?;
        match self.arrivals.process {
            Process::Poisson => positive("arrivals.rho", self.arrivals.rho),
            Process::Trace => Ok(()),
            Process::Curve => self.curve.check(),
        }
    }

    /// Some pool may grow or shrink.
    pub fn is_elastic(&self) -> bool {
        self.pools.iter().any(|pool| pool.min < pool.max)
    }
}

impl Curve {
    fn check(&self) -> Result<(), ScenarioError> {
        positive("arrivals.mean_rps", self.mean_rps)?;
        let rising = self.points.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let starts = self.points.len() > 1 && self.points[0].0 == 0.0;
        bound("arrivals.points", "not in order", rising && starts, "two or more, with times that rise from 0")?;
        let rates = self.points.iter().all(|(_, rate)| rate.is_finite() && *rate >= 0.0);
        bound("arrivals.points", "no curve", rates && self.mean() > 0.0, "rates of 0 or more, not all of them 0")
    }

    pub fn period(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.0)
    }

    /// Of the points as they are.
    pub fn mean(&self) -> f64 {
        let area: f64 = self.points.windows(2).map(|two| (two[1].0 - two[0].0) * (two[0].1 + two[1].1) / 2.0).sum();
        if self.period() > 0.0 { area / self.period() } else { 0.0 }
    }

    pub fn most(&self) -> f64 {
        self.points.iter().map(|point| point.1).fold(0.0, f64::max)
    }

    /// The rate at a time, as the points have it.
    pub fn at(&self, seconds: f64) -> f64 {
        let time = seconds.rem_euclid(self.period().max(f64::MIN_POSITIVE));
        let next = self.points.partition_point(|point| point.0 <= time);
        match (next.checked_sub(1).and_then(|at| self.points.get(at)), self.points.get(next)) {
            (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (time - a.0) / (b.0 - a.0),
            (Some(a), None) => a.1,
            (None, _) => 0.0,
        }
    }
}

fn positive(field: impl Into<String>, value: f64) -> Result<(), ScenarioError> {
    bound(field, value, value.is_finite() && value > 0.0, "more than 0")
}

fn bound(
    field: impl Into<String>,
    value: impl std::fmt::Display,
    holds: bool,
    must: &'static str,
) -> Result<(), ScenarioError> {
    if holds { Ok(()) } else { Err(ScenarioError::Value { field: field.into(), value: value.to_string(), must }) }
}
