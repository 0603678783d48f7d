//! How many replicas each pool shall have: enough for what is asked and forecast, at the least price, never over a limit.
//! A pure function of what is observed and an explicit, bounded `Memory`; knows no request, no pod and no clock.
//!
//! The need is work that arrives a second, plus a headroom of `β × (that work)^¼`, which grows slower than the work, as in
//! square-root staffing. β is not chosen but learned: each request that misses its deadline raises it, each one in time
//! lowers it a little, so that it settles where misses are what the service level allows.

mod forecast;
mod leave;
mod memory;
mod spread;

use std::fmt;

use crate::names::PoolName;
use crate::snapshot::Capacity;
use crate::time::{Moment, Span};
use crate::units::MicroUsdPerHour;

pub use forecast::{Forecast, Seasons};
pub use memory::Memory;

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: PoolName,
    /// Of one replica.
    pub price: MicroUsdPerHour,
    pub capacity: Capacity,
    pub speed: f64,
    pub min: u32,
    pub max: u32,
    pub max_cost: Option<MicroUsdPerHour>,
    /// Replicas beyond the need, as long as there is any.
    pub spares: u32,
    /// From an order until it can load.
    pub start: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// By its place among the pools.
    pub pool: usize,
    /// Has had its notice: it is there, but must be replaced.
    pub leaving: bool,
    pub busy: bool,
    /// Seconds of loads that what it holds saves a second.
    pub worth: f64,
    /// When it was ordered.
    pub since: Moment,
}

/// What the service level and the checkpoints say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aim {
    /// Share of requests that may miss their deadline: 0.05 for a latency target at the 95th percentile.
    pub misses: f64,
    /// Of a usual checkpoint onto an empty replica.
    pub load: Span,
    /// Share of the need that the loss of the largest spot pool must leave in place.
    pub survives: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub pools: &'a [Pool],
    pub replicas: &'a [Observed],
    pub aim: Aim,
    /// Seconds of work, at speed 1, of requests that are there and have no place in which they are in time.
    pub placeless: f64,
    /// Requests that wait or are drawn.
    pub present: usize,
}

/// Replicas wanted by pool, whom to give up, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub desired: Vec<u32>,
    /// By their place among the observed ones.
    pub end: Vec<usize>,
    pub reasons: Vec<Reason>,
}

/// One decision; its text is the sentence of status, event and log.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    Need { need: f64, rate: f64, headroom: f64 },
    Forecast { rate: f64, upper: f64 },
    Panic { short: f64, stable: f64 },
    Held { need: f64, until: Span },
    Wake,
    Zero { quiet: Span },
    Grow { pool: PoolName, from: u32, to: u32 },
    Shrink { pool: PoolName, from: u32, to: u32 },
    Replace { pool: PoolName, leaving: u32 },
    Short { missing: f64 },
}

/// Half of the time until a new replica helps: a rise that lasts longer is met best by an order now.
const PANIC_SHARE: f64 = 0.5;
/// A short-window rate this many times the stable one is no noise; Knative's threshold, and about 3 standard deviations
/// of a minute of Poisson arrivals at a rate of 10 a minute.
const PANIC: f64 = 2.0;

/// Of the headroom. Square-root staffing has ½, for queues that wait at one rate; on the daily curve ½ cost 2 % more hours than
/// ¼, and ¾ some 8 % more, at about the same attainment: misses at night count no more than those by day.
const ROOT: f64 = 0.25;
/// A need stays for two looks, against flapping. The windows of the rate last minutes and hold longer than that already; holding
/// for a start and a load on top cost 3 % more hours on the daily curve.
const HOLD: Span = Span::from_micros(20_000_000);

/// Decides; the memory that it gives back remembers the need, so that deciding again at once changes nothing.
pub fn autoscale(input: &Input<'_>, memory: &Memory, now: Moment) -> (Decision, Memory) {
    let mut memory = memory.clone();
    let mut reasons = Vec::new();
    let start = input.pools.iter().map(|pool| pool.start).max().unwrap_or_default();
    // To give a replica up and to order it again costs its start and a load: idle for that long it has cost as much.
    let window = start + input.aim.load;
    let need = need(input, &mut memory, start, window, now, &mut reasons);
    let held = memory.hold(need, HOLD, now);
    if held > need {
        reasons.push(Reason::Held { need: held, until: HOLD });
    }
    let pools = possible(input);
    let desired = spread::spread(&pools, input.aim.survives, held);
    let placed: f64 = pools.iter().zip(&desired).map(|(pool, n)| pool.speed * f64::from(*n)).sum();
    if placed < held {
        reasons.push(Reason::Short { missing: held - placed });
    }
    let desired = spread::with_spares(&pools, desired, held > 0.0);
    let end = leave::leave(input, &desired);
    explain(input, &desired, &mut reasons);
    (Decision { desired, end, reasons }, memory)
}

/// Who is reclaimed keeps its place until it has gone: what replaces it must fit beside it.
fn possible(input: &Input<'_>) -> Vec<Pool> {
    let left = |(at, pool): (usize, &Pool)| {
        let leaving = input.replicas.iter().filter(|replica| replica.pool == at && replica.leaving).count();
        let max = pool.max.saturating_sub(u32::try_from(leaving).unwrap_or(u32::MAX));
        Pool { max, ..pool.clone() }
    };
    input.pools.iter().enumerate().map(left).collect()
}

/// Speed that is wanted, before it is held for a while.
fn need(
    input: &Input<'_>,
    memory: &mut Memory,
    start: Span,
    hold: Span,
    now: Moment,
    reasons: &mut Vec<Reason>,
) -> f64 {
    let stable = memory.rate(Memory::STABLE, now);
    let short = memory.rate(start.times(PANIC_SHARE).max(Memory::SHORTEST), now);
    let mut rate = memory.rate(hold, now).max(stable);
    if let Some(forecast) = memory.forecast(now, start + input.aim.load) {
        reasons.push(Reason::Forecast { rate: forecast.rate, upper: forecast.upper });
        rate = rate.max(forecast.rate);
    }
    if stable > 0.0 && short > PANIC * stable {
        memory.panic(now, hold);
        reasons.push(Reason::Panic { short, stable });
        rate = rate.max(short);
    }
    if input.present == 0 && memory.quiet(now) >= Memory::STABLE {
        reasons.push(Reason::Zero { quiet: memory.quiet(now) });
        return 0.0;
    }
    if input.present > 0 && input.replicas.iter().all(|replica| replica.leaving) {
        reasons.push(Reason::Wake);
    }
    let headroom = memory.headroom() * rate.powf(ROOT);
    // Whoever has no place must be drawn by what is ordered now, within the time in which that begins to help.
    let behind = input.placeless / hold.secs().max(1.0);
    let mut need = rate + headroom.max(behind);
    if input.present > 0 {
        need = need.max(f64::MIN_POSITIVE);
    }
    reasons.push(Reason::Need { need, rate, headroom });
    if memory.panics(now) { need.max(memory.held()) } else { need }
}

fn explain(input: &Input<'_>, desired: &[u32], reasons: &mut Vec<Reason>) {
    for (at, (pool, to)) in input.pools.iter().zip(desired).enumerate() {
        let here = input.replicas.iter().filter(|replica| replica.pool == at);
        let count = |leaving: bool| here.clone().filter(|replica| replica.leaving == leaving).count();
        let (from, leaving) = (u32::try_from(count(false)).unwrap_or(u32::MAX), count(true));
        if leaving > 0 {
            let leaving = u32::try_from(leaving).unwrap_or(u32::MAX);
            reasons.push(Reason::Replace { pool: pool.name.clone(), leaving });
        }
        match from.cmp(to) {
            std::cmp::Ordering::Less => reasons.push(Reason::Grow { pool: pool.name.clone(), from, to: *to }),
            std::cmp::Ordering::Greater => reasons.push(Reason::Shrink { pool: pool.name.clone(), from, to: *to }),
            std::cmp::Ordering::Equal => {}
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Need { need, rate, headroom } => {
                write!(
                    f,
                    "{need:.2} replicas of speed 1 are needed: {rate:.2} for work that arrives, and {headroom:.2} "
                )?;
                write!(f, "of headroom, learned from deadlines that were met and missed")
            }
            Self::Forecast { rate, upper } => {
                write!(f, "this time of day brought {rate:.2} replicas' work, at most {upper:.2}")
            }
            Self::Panic { short, stable } => {
                write!(
                    f,
                    "work arrives at {short:.2}, which was {stable:.2}: no replica is given up until that is over"
                )
            }
            Self::Held { need, until } => write!(f, "{need:.2} were needed within the last {until}, and stay"),
            Self::Wake => write!(f, "a request waits and there is no replica: one is ordered"),
            Self::Zero { quiet } => write!(f, "nothing was asked for in {quiet}: no replica is needed"),
            Self::Grow { pool, from, to } => write!(f, "pool {pool}: from {from} to {to} replicas"),
            Self::Shrink { pool, from, to } => {
                write!(f, "pool {pool}: from {from} to {to} replicas, the idle and the least useful first")
            }
            Self::Replace { pool, leaving } => {
                write!(f, "pool {pool}: {leaving} replicas are reclaimed and are replaced before they go")
            }
            Self::Short { missing } => {
                write!(f, "limits leave {missing:.2} replicas of speed 1 unplaced; raise a pool's limits or add a pool")
            }
        }
    }
}

#[cfg(test)]
mod tests;
