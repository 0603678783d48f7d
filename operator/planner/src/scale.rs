//! How many replicas hold each model now: between its bounds, as demand asks. Scales up at once and down with patience.
//! Knows demand in model calls and what a call takes; which pool gives the replicas is decided in `plan`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::latency::STEP_PRIOR;
use crate::names::ModelId;
use crate::snapshot::{Asked, Model, Snapshot, Tenancy};
use crate::time::{Moment, Span};

/// Over which the gateways count what came. Long enough that a request a minute keeps a model awake.
const WINDOW: Duration = Duration::from_mins(1);
/// Share of a replica's time that is planned to be drawing: the rest is for requests that come together. With random
/// arrivals and one at a time, a request then waits 0.7 / (2 · 0.3) = 1.2 times its own drawing on average.
const DRAWING: f64 = 0.7;
/// In this time what waits without a pod shall be drawn, where no class says less. As long as a load takes: what drains
/// by itself in that time is not worth a replica.
const DRAIN: Duration = Duration::from_secs(30);
/// So long the highest demand counts before replicas go: a load costs half of this.
const PATIENCE: Span = Span::from_micros(60_000_000);

/// What the leader must not forget between two plans. One entry a model; a leader that has none begins with what is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    held: BTreeMap<ModelId, Held>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    replicas: u32,
    until: Moment,
}

/// How many replicas a model shall have, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    pub replicas: u32,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// `replicas.max` is not above `replicas.min`.
    Fixed,
    /// Demand asks for no more than the least.
    Least,
    /// So many replicas would be drawing all the time with what came, and so many to draw in time what waits.
    Demand { drawing: f64, backlog: f64 },
    /// Demand asks for more than `replicas.max`.
    Most { asked: u32 },
    /// Demand has gone down; replicas stay until it has stayed down.
    Patience { asked: u32 },
}

/// The snapshot with every model's replicas as they are wanted now.
pub fn scale(mut snapshot: Snapshot, memory: &Memory, now: Moment) -> (Snapshot, Memory, BTreeMap<ModelId, Scaling>) {
    let mut next = Memory::default();
    let mut scalings = BTreeMap::new();
    for (id, model) in &snapshot.models {
        let (bounded, why) = bounded(&snapshot, id, model);
        let there = || Held { replicas: seated(&snapshot, id), until: now + PATIENCE };
        let held = memory.held.get(id).copied().unwrap_or_else(there);
        let scaling = match why {
            Why::Fixed => Scaling { replicas: bounded, why },
            Why::Least | Why::Demand { .. } | Why::Most { .. } | Why::Patience { .. } => {
                patient(model, bounded, why, held, now)
            }
        };
        let until = if scaling.replicas > bounded { held.until } else { now + PATIENCE };
        next.held.insert(id.clone(), Held { replicas: scaling.replicas, until });
        scalings.insert(id.clone(), scaling);
    }
    for (id, scaling) in &scalings {
        if let Some(model) = snapshot.models.get_mut(id) {
            model.replicas = scaling.replicas;
        }
    }
    (snapshot, next, scalings)
}

/// What demand asks for now, within the bounds.
fn bounded(snapshot: &Snapshot, id: &ModelId, model: &Model) -> (u32, Why) {
    let Some(most) = model.max_replicas.filter(|most| *most > model.min_replicas) else {
        return (model.min_replicas, Why::Fixed);
    };
    let asked = snapshot.demand.get(id).copied().unwrap_or_default();
    let (drawing, backlog) = (drawing(snapshot, id, asked), backlog(snapshot, id, model, asked));
    let nobody = asked.arrived == 0 && asked.waiting == 0;
    // A cast saturates; no fleet has so many.
    let wanted = if nobody { 0 } else { ((drawing / DRAWING + backlog).ceil() as u32).max(1) };
    match wanted {
        _ if wanted > most => (most, Why::Most { asked: wanted }),
        _ if wanted <= model.min_replicas => (model.min_replicas, Why::Least),
        _ => (wanted, Why::Demand { drawing, backlog }),
    }
}

fn drawing(snapshot: &Snapshot, id: &ModelId, asked: Asked) -> f64 {
    asked.arrived_calls as f64 * step(snapshot, id).as_secs_f64() / WINDOW.as_secs_f64()
}

fn backlog(snapshot: &Snapshot, id: &ModelId, model: &Model, asked: Asked) -> f64 {
    let drain = model.slos.iter().map(|slo| slo.latency).min().map_or(DRAIN, |latency| latency.min(DRAIN));
    asked.waiting_calls as f64 * step(snapshot, id).as_secs_f64() / drain.as_secs_f64().max(1.0)
}

/// The slowest of the pools that were measured: on it the replicas may come to be.
fn step(snapshot: &Snapshot, id: &ModelId) -> Duration {
    let pools = snapshot.pools.keys();
    pools.filter_map(|pool| snapshot.steps.on(id, pool, &snapshot.pools)).max().unwrap_or(STEP_PRIOR)
}

/// Down only once demand has asked for less for a while.
fn patient(model: &Model, bounded: u32, why: Why, held: Held, now: Moment) -> Scaling {
    let most = model.max_replicas.unwrap_or(bounded);
    let kept = held.replicas.min(most);
    if kept > bounded && now < held.until {
        Scaling { replicas: kept, why: Why::Patience { asked: bounded } }
    } else {
        Scaling { replicas: bounded, why }
    }
}

/// Replicas that hold the model, or are its own.
fn seated(snapshot: &Snapshot, id: &ModelId) -> u32 {
    let holds = snapshot.replicas.values().filter(|replica| match &replica.tenancy {
        Tenancy::Dedicated(own) => own == id,
        Tenancy::Shared => replica.residents.contains_key(id),
    });
    u32::try_from(holds.count()).unwrap_or(u32::MAX)
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas = self.replicas;
        match self.why {
            Why::Fixed => write!(f, "{replicas} replicas: replicas.max is not above replicas.min"),
            Why::Least => write!(f, "{replicas} replicas: the least, and enough for what is asked"),
            Why::Demand { drawing, backlog } => write!(
                f,
                "{replicas} replicas: what came in a minute keeps {drawing:.1} drawing, and {backlog:.1} more shall draw what waits"
            ),
            Why::Most { asked } => write!(f, "{replicas} replicas: replicas.max; demand asks for {asked}"),
            Why::Patience { asked } => {
                write!(f, "{replicas} replicas: demand asks for {asked} now, and shall do so for a minute first")
            }
        }
    }
}

#[cfg(test)]
mod tests;
