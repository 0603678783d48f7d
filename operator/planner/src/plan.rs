//! Plans the whole fleet: who sits where, and how many replicas that needs.
//! Keeps what is seated, then seats what is missing, so that planning twice changes nothing.

mod fleet;
mod seat;

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{ModelId, PoolName, ReplicaId};
use crate::placement::{self, Rejection};
use crate::report::{Outcome, Report};
use crate::snapshot::{Model, Placement, Snapshot};
use fleet::Fleet;

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetPlan {
    /// Replicas of every pool's shared Deployment, warm spares included.
    pub shared: BTreeMap<PoolName, u32>,
    /// Pool and replicas of every Dedicated model's Deployment. A model that fits nowhere has none.
    pub dedicated: BTreeMap<ModelId, DedicatedPlan>,
    /// What every replica that stays shall hold.
    pub residency: BTreeMap<ReplicaId, BTreeSet<ModelId>>,
    /// Replicas that hold more models than fit on the device: they take turns there, as they are asked for.
    pub turns: BTreeSet<ReplicaId>,
    pub outcomes: BTreeMap<ModelId, Outcome>,
    pub report: Report,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedicatedPlan {
    pub pool: PoolName,
    pub replicas: u32,
}

/// One plan for all. Pure: equal snapshots give equal plans.
pub fn plan(snapshot: &Snapshot) -> FleetPlan {
    let mut fleet = Fleet::keep(snapshot);
    let outcomes: BTreeMap<ModelId, Outcome> =
        snapshot.models.iter().map(|(id, model)| (id.clone(), outcome(snapshot, &mut fleet, id, model))).collect();
    let residency = fleet.residency();
    let (shared, dedicated) = fleet.replicas(&residency);
    let outcomes = neighbours_take_turns_too(outcomes, &fleet);
    let report = Report {
        models: outcomes.iter().map(|(id, outcome)| (id.clone(), outcome.clone())).collect(),
        pools: fleet.costs(&shared),
    };
    FleetPlan { shared, dedicated, residency, turns: fleet.turns(), outcomes, report }
}

/// A model that was seated before another came in turns with it takes turns as well.
fn neighbours_take_turns_too(outcomes: BTreeMap<ModelId, Outcome>, fleet: &Fleet<'_>) -> BTreeMap<ModelId, Outcome> {
    let tell = |(id, outcome): (ModelId, Outcome)| match outcome {
        Outcome::Placed { seats } if fleet.takes_turns(&id) => (id, Outcome::InTurns { seats, rejections: Vec::new() }),
        outcome => (id, outcome),
    };
    outcomes.into_iter().map(tell).collect()
}

/// Seats what is missing of one model and says what became of it.
fn outcome(snapshot: &Snapshot, fleet: &mut Fleet<'_>, id: &ModelId, model: &Model) -> Outcome {
    if model.leaving {
        return Outcome::Leaving;
    }
    if model.replicas == 0 {
        return if model.max_replicas.is_some() { Outcome::Asleep } else { Outcome::Parked };
    }
    let wanted = model.replicas;
    if snapshot.pools.is_empty() && model.pools.is_empty() {
        return Outcome::NoPool { wanted };
    }
    let (order, mut rejections) = candidates(snapshot, id, model);
    match model.placement {
        Placement::Shared => seat_shared(fleet, id, model, &order, &mut rejections),
        Placement::Dedicated => seat_dedicated(fleet, id, model, &order, &mut rejections),
    }
    if fleet.seated(id) == 0 && model.placement == Placement::Shared {
        // In the model's own order of pools; a model that no replica could ever hold was rejected there.
        let _ = order.iter().any(|name| fleet.share(id, model, name));
    }
    let seats = fleet.seats_of(id);
    if fleet.takes_turns(id) && seats.iter().map(|(_, n)| n).sum::<u32>() >= wanted {
        return Outcome::InTurns { seats, rejections };
    }
    if seats.iter().map(|(_, n)| n).sum::<u32>() >= wanted {
        Outcome::Placed { seats }
    } else {
        Outcome::Short { wanted, seats, rejections }
    }
}

/// Pools that suit, best first, and why the others do not.
fn candidates(snapshot: &Snapshot, id: &ModelId, model: &Model) -> (Vec<PoolName>, Vec<(PoolName, Rejection)>) {
    let asked: Vec<(usize, &PoolName)> = if model.pools.is_empty() {
        snapshot.pools.keys().map(|name| (0, name)).collect()
    } else {
        model.pools.iter().enumerate().collect()
    };
    let (mut scores, mut rejections) = (BTreeSet::new(), Vec::new());
    for (preference, name) in asked {
        let suits = match snapshot.pools.get(name) {
            Some(pool) => placement::suits(model, pool, snapshot.steps.on(id, name, &snapshot.pools))
                .map(|()| placement::score(preference, name, pool)),
            None => Err(Rejection::UnknownPool),
        };
        match suits {
            Ok(score) => drop(scores.insert(score)),
            Err(rejection) => rejections.push((name.clone(), rejection)),
        }
    }
    (scores.into_iter().map(|score| score.name).collect(), rejections)
}

/// Copies may lie on several pools: each goes to the best that has room.
fn seat_shared(
    fleet: &mut Fleet<'_>,
    id: &ModelId,
    model: &Model,
    order: &[PoolName],
    rejections: &mut Vec<(PoolName, Rejection)>,
) {
    let missing = model.replicas.saturating_sub(fleet.seated(id));
    let mut asked = order.iter();
    let mut pool = asked.next();
    for _ in 0..missing {
        while let Some(name) = pool {
            if fleet.seat(id, model, name).is_ok() {
                break;
            }
            pool = asked.next();
        }
    }
    // Asked again at the end, so that the reasons are those of what is seated, and the same the next time.
    if fleet.seated(id) < model.replicas {
        rejections.extend(order.iter().filter_map(|name| Some((name.clone(), fleet.refusal(id, model, name)?))));
    }
}

/// All replicas of a Dedicated model are in one Deployment and so on one pool: where it is, else the first that takes
/// them all, else the one that takes most.
fn seat_dedicated(
    fleet: &mut Fleet<'_>,
    id: &ModelId,
    model: &Model,
    order: &[PoolName],
    rejections: &mut Vec<(PoolName, Rejection)>,
) {
    let home = fleet.dedicated_pool(id);
    let mut most: Option<(u32, &PoolName)> = None;
    for name in order {
        let missing = if home.as_ref() == Some(name) { model.replicas - fleet.seated(id) } else { model.replicas };
        let (room, rejection) = fleet.dedicated_room(id, model, name, missing);
        if home.as_ref().is_none_or(|home| home == name) && most.is_none_or(|(best, _)| room > best) {
            most = Some((room, name));
        }
        match rejection {
            None if home.as_ref().is_none_or(|home| home == name) => break,
            None => {}
            Some(rejection) => rejections.push((name.clone(), rejection)),
        }
    }
    match most {
        Some((room, name)) if room > 0 => {
            for _ in 0..room {
                let grown = fleet.grow_dedicated(id, model, name);
                debug_assert!(grown.is_ok(), "the room was counted just before");
            }
        }
        _ if home.is_none() => fleet.stay_on_leaving(id, model),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
