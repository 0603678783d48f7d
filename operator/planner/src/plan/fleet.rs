//! The plan while it grows: seats in shared replicas, replicas of Dedicated models, and what is left of each pool.
//! Books and counts; which model comes first and which pool is asked is decided by its caller.

use std::collections::{BTreeMap, BTreeSet};

use super::DedicatedPlan;
use super::seat::Seats;
use crate::names::{ModelId, PoolName, ReplicaId};
use crate::placement::{self, Rejection};
use crate::snapshot::{Model, Placement, Pool, Replica, ReplicaPhase, Snapshot, Tenancy};
use crate::units::{Bytes, MicroUsdPerHour};

pub(super) struct Fleet<'a> {
    snapshot: &'a Snapshot,
    shared: Vec<Seats>,
    dedicated: BTreeMap<ModelId, DedicatedPlan>,
}

impl<'a> Fleet<'a> {
    /// What stays where it is: seats of wanted models in current replicas, and pools of Dedicated ones. Pools that
    /// are being deleted keep no seat: what serves there is needed only until its copies elsewhere are ready.
    pub(super) fn keep(snapshot: &'a Snapshot) -> Self {
        let mut fleet = Self { snapshot, shared: Vec::new(), dedicated: BTreeMap::new() };
        for (id, replica) in snapshot.replicas.iter().filter(|(_, replica)| replica.phase == ReplicaPhase::Current) {
            match (snapshot.pools.get(&replica.pool), &replica.tenancy) {
                (Some(pool), Tenancy::Shared) if !pool.leaving => fleet.keep_shared(id, replica, pool),
                (Some(pool), Tenancy::Dedicated(model)) if !pool.leaving => fleet.keep_dedicated(model, replica, pool),
                (Some(_) | None, _) => {}
            }
        }
        fleet
    }

    fn keep_shared(&mut self, id: &ReplicaId, replica: &Replica, pool: &Pool) {
        let at = self.shared.len();
        self.make(Some(id), &replica.pool, pool.memory);
        for id in replica.residents.keys() {
            let Some(model) = self.snapshot.models.get(id) else { continue };
            let welcome = wanted(model, Placement::Shared)
                && self.seated(id) < model.replicas
                && self.stays_welcome(id, model, &replica.pool, pool)
                && placement::may_afford(model, pool, self.bill(id)).is_ok()
                && self.shared[at].fit(id, model.memory).is_some();
            // The limit may have been lowered since: an empty replica counts only once somebody sits there.
            let counted = !self.shared[at].models.is_empty();
            if welcome && (counted || placement::may_grow(pool, self.replicas_on(&replica.pool)).is_ok()) {
                self.shared[at].take(id, model.memory);
            }
        }
    }

    fn keep_dedicated(&mut self, id: &ModelId, replica: &Replica, pool: &Pool) {
        let Some(model) = self.snapshot.models.get(id) else { return };
        let welcome = wanted(model, Placement::Dedicated) && self.stays_welcome(id, model, &replica.pool, pool);
        let here = self.dedicated.get(id).is_none_or(|plan| plan.pool == replica.pool);
        if welcome && here && self.seated(id) < model.replicas {
            // A lowered limit shows as a rejection when the model is planned.
            let _ = self.grow_dedicated(id, model, &replica.pool);
        }
    }

    /// A seat is kept although a better one may exist: moving costs a load, and a plan must not flap.
    fn stays_welcome(&self, id: &ModelId, model: &Model, name: &PoolName, pool: &Pool) -> bool {
        let step = self.snapshot.steps.on(id, name, &self.snapshot.pools);
        (model.pools.is_empty() || model.pools.contains(name)) && placement::suits(model, pool, step).is_ok()
    }

    /// What the model's replicas cost together, each with its whole price.
    fn bill(&self, id: &ModelId) -> MicroUsdPerHour {
        let cost = |(name, n): &(PoolName, u32)| self.snapshot.pools.get(name).map(|pool| pool.price.times(*n));
        self.seats_of(id).iter().filter_map(cost).fold(MicroUsdPerHour::default(), |sum, cost| sum + cost)
    }

    /// Replicas that hold the model.
    pub(super) fn seated(&self, id: &ModelId) -> u32 {
        self.seats_of(id).iter().map(|(_, n)| n).sum()
    }

    pub(super) fn seats_of(&self, id: &ModelId) -> Vec<(PoolName, u32)> {
        let mut seats: BTreeMap<PoolName, u32> = BTreeMap::new();
        for held in self.shared.iter().filter(|held| held.models.contains(id)) {
            *seats.entry(held.pool.clone()).or_default() += 1;
        }
        if let Some(plan) = self.dedicated.get(id).filter(|plan| plan.replicas > 0) {
            seats.insert(plan.pool.clone(), plan.replicas);
        }
        seats.into_iter().collect()
    }

    /// Puts one more copy into the pool: where it fits best, else into a replica that is yet to be made.
    pub(super) fn seat(&mut self, id: &ModelId, model: &Model, name: &PoolName) -> Result<(), Rejection> {
        let pool = self.snapshot.pools.get(name).ok_or(Rejection::UnknownPool)?;
        let at = match self.best_seat(id, model, name, pool)? {
            Some(at) => at,
            None => self.make(None, name, pool.memory),
        };
        self.shared[at].take(id, model.memory);
        Ok(())
    }

    /// Puts the only copy of a model that has no seat into a replica of the pool that others fill, in turns with them. It
    /// is slower than a seat of its own, and better than none.
    pub(super) fn share(&mut self, id: &ModelId, model: &Model, name: &PoolName) -> bool {
        let Some(pool) = self.snapshot.pools.get(name) else { return false };
        if placement::may_afford(model, pool, self.bill(id)).is_err() {
            return false;
        }
        let most = Bytes(pool.memory.0.saturating_mul(u64::from(pool.overcommit)));
        let resident = |replica: &ReplicaId| {
            self.snapshot.replicas.get(replica).is_some_and(|replica| replica.residents.contains_key(id))
        };
        let crowds =
            self.shared.iter().enumerate().filter(|(_, seats)| seats.pool == *name && !seats.models.is_empty());
        let crowd = |(at, seats): (usize, &Seats)| {
            let resident = seats.replica.as_ref().is_some_and(resident);
            seats.crowd(id, model.memory, most, resident).map(|crowd| (crowd, at))
        };
        let Some((_, at)) = crowds.filter_map(crowd).min() else { return false };
        self.shared[at].squeeze(id, model.memory);
        true
    }

    /// Replicas whose models take turns.
    pub(super) fn turns(&self) -> BTreeSet<ReplicaId> {
        self.shared.iter().filter(|seats| seats.turns).filter_map(|seats| seats.replica.clone()).collect()
    }

    pub(super) fn takes_turns(&self, id: &ModelId) -> bool {
        self.shared.iter().any(|seats| seats.turns && seats.models.contains(id))
    }

    /// Why the pool takes no further copy.
    pub(super) fn refusal(&self, id: &ModelId, model: &Model, name: &PoolName) -> Option<Rejection> {
        let Some(pool) = self.snapshot.pools.get(name) else { return Some(Rejection::UnknownPool) };
        self.best_seat(id, model, name, pool).err()
    }

    /// `None`: in a replica that is yet to be made. The model's own ceiling comes first, because it does not depend on who
    /// else is there.
    fn best_seat(&self, id: &ModelId, model: &Model, name: &PoolName, pool: &Pool) -> Result<Option<usize>, Rejection> {
        placement::may_afford(model, pool, self.bill(id))?;
        let fits = self.shared.iter().enumerate().filter(|(_, seats)| seats.pool == *name);
        let best = fits.filter_map(|(at, seats)| seats.fit(id, model.memory).map(|fit| (fit, at))).min();
        let at = best.map(|(_, at)| at);
        // An empty replica counts only from now on, so it may be the one too many.
        if at.is_none_or(|at| self.shared[at].models.is_empty()) {
            placement::may_grow(pool, self.replicas_on(name))?;
        }
        Ok(at)
    }

    fn make(&mut self, replica: Option<&ReplicaId>, pool: &PoolName, free: Bytes) -> usize {
        let (pool, replica) = (pool.clone(), replica.cloned());
        self.shared.push(Seats { pool, replica, free, models: BTreeSet::new(), turns: false, needed: Bytes(0) });
        self.shared.len() - 1
    }

    pub(super) fn dedicated_pool(&self, id: &ModelId) -> Option<PoolName> {
        self.dedicated.get(id).filter(|plan| plan.replicas > 0).map(|plan| plan.pool.clone())
    }

    /// How many of `wanted` replicas the pool can still make, and what stops it.
    pub(super) fn dedicated_room(
        &self,
        id: &ModelId,
        model: &Model,
        name: &PoolName,
        wanted: u32,
    ) -> (u32, Option<Rejection>) {
        let Some(pool) = self.snapshot.pools.get(name) else { return (0, Some(Rejection::UnknownPool)) };
        let used = self.replicas_on(name);
        let here = self.dedicated.get(id).filter(|plan| plan.pool == *name).map_or(0, |plan| plan.replicas);
        let affordable = first_refusal(wanted, |n| placement::may_afford(model, pool, pool.price.times(here + n)));
        let growable = first_refusal(wanted, |n| placement::may_grow(pool, used + n));
        // Its own ceiling is told first: that does not depend on who else is there.
        (affordable.0.min(growable.0), affordable.1.or(growable.1))
    }

    pub(super) fn grow_dedicated(&mut self, id: &ModelId, model: &Model, name: &PoolName) -> Result<(), Rejection> {
        let pool = self.snapshot.pools.get(name).ok_or(Rejection::UnknownPool)?;
        placement::may_afford(model, pool, self.bill(id))?;
        placement::may_grow(pool, self.replicas_on(name))?;
        let plan = self.dedicated.entry(id.clone());
        plan.or_insert_with(|| DedicatedPlan { pool: name.clone(), replicas: 0 }).replicas += 1;
        Ok(())
    }

    /// A Dedicated model that no other pool takes stays on the one that is being deleted, and so holds it.
    pub(super) fn stay_on_leaving(&mut self, id: &ModelId, model: &Model) {
        let leaving = |replica: &&Replica| {
            replica.tenancy == Tenancy::Dedicated(id.clone())
                && replica.phase == ReplicaPhase::Current
                && self.snapshot.pools.get(&replica.pool).is_some_and(|pool| pool.leaving)
        };
        let held: Vec<&Replica> = self.snapshot.replicas.values().filter(leaving).collect();
        if let Some(first) = held.first() {
            let replicas = u32::try_from(held.len()).unwrap_or(u32::MAX).min(model.replicas);
            self.dedicated.insert(id.clone(), DedicatedPlan { pool: first.pool.clone(), replicas });
        }
    }

    /// Replicas that the plan gives to a pool: those that hold something, and Dedicated ones.
    fn replicas_on(&self, name: &PoolName) -> u32 {
        self.shared_on(name).saturating_add(self.dedicated_on(name))
    }

    fn shared_on(&self, name: &PoolName) -> u32 {
        let held = self.shared.iter().filter(|seats| seats.pool == *name && !seats.models.is_empty()).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    fn dedicated_on(&self, name: &PoolName) -> u32 {
        self.dedicated.values().filter(|plan| plan.pool == *name).map(|plan| plan.replicas).sum()
    }

    /// Replicas of every shared Deployment, and every Dedicated one.
    pub(super) fn replicas(
        &self,
        residency: &BTreeMap<ReplicaId, BTreeSet<ModelId>>,
    ) -> (BTreeMap<PoolName, u32>, BTreeMap<ModelId, DedicatedPlan>) {
        let count = |(name, pool): (&PoolName, &Pool)| {
            let replicas = if pool.leaving {
                self.still_serving(name, residency)
            } else {
                self.shared_on(name) + placement::spares(pool, self.replicas_on(name))
            };
            (name.clone(), replicas)
        };
        let shared = self.snapshot.pools.iter().map(count).collect();
        let dedicated = self.dedicated.iter().filter(|(_, plan)| plan.replicas > 0);
        (shared, dedicated.map(|(id, plan)| (id.clone(), plan.clone())).collect())
    }

    fn still_serving(&self, name: &PoolName, residency: &BTreeMap<ReplicaId, BTreeSet<ModelId>>) -> u32 {
        let serving = |(id, held): &(&ReplicaId, &BTreeSet<ModelId>)| {
            let replica = &self.snapshot.replicas[*id];
            replica.pool == *name && replica.tenancy == Tenancy::Shared && !held.is_empty()
        };
        u32::try_from(residency.iter().filter(serving).count()).unwrap_or(u32::MAX)
    }

    /// What every replica shall hold; one that leaves is told nothing more.
    pub(super) fn residency(&self) -> BTreeMap<ReplicaId, BTreeSet<ModelId>> {
        let stays = self.snapshot.replicas.iter().filter(|(_, replica)| replica.phase != ReplicaPhase::Leaving);
        let mut residency: BTreeMap<_, _> = stays.map(|(id, replica)| (id.clone(), self.held_by(replica))).collect();
        for seats in &self.shared {
            if let Some(id) = &seats.replica {
                residency.insert(id.clone(), seats.models.clone());
            }
        }
        residency
    }

    /// What a replica without seats holds on to: a Dedicated one its model, a shared one that will go (its template or
    /// its pool does) whatever is not yet ready often enough elsewhere.
    fn held_by(&self, replica: &Replica) -> BTreeSet<ModelId> {
        match &replica.tenancy {
            Tenancy::Dedicated(id) => {
                let served = self.snapshot.models.get(id).is_some_and(|model| wanted(model, Placement::Dedicated));
                served.then(|| id.clone()).into_iter().collect()
            }
            Tenancy::Shared => {
                let needed = |id: &&ModelId| self.snapshot.models.get(*id).is_some_and(|m| self.needs_stopgap(id, m));
                replica.residents.keys().filter(needed).cloned().collect()
            }
        }
    }

    fn needs_stopgap(&self, id: &ModelId, model: &Model) -> bool {
        let seats = self.shared.iter().filter(|seats| seats.models.contains(id));
        let ready = seats.filter_map(|seats| self.snapshot.replicas.get(seats.replica.as_ref()?)).filter(|replica| {
            replica.residents.get(id).is_some_and(|resident| resident.ready && resident.digest == model.digest)
        });
        wanted(model, Placement::Shared) && ready.count() < model.replicas as usize
    }

    pub(super) fn costs(&self, shared: &BTreeMap<PoolName, u32>) -> Vec<(PoolName, u32, MicroUsdPerHour)> {
        let line = |(name, pool): (&PoolName, &Pool)| {
            let replicas = shared.get(name).copied().unwrap_or(0).saturating_add(self.dedicated_on(name));
            (name.clone(), replicas, pool.price.times(replicas))
        };
        self.snapshot.pools.iter().map(line).collect()
    }
}

/// How many of so many are let through, and what stops the next.
fn first_refusal(wanted: u32, check: impl Fn(u32) -> Result<(), Rejection>) -> (u32, Option<Rejection>) {
    let refused = (0..wanted).find_map(|n| check(n).err().map(|rejection| (n, Some(rejection))));
    refused.unwrap_or((wanted, None))
}

fn wanted(model: &Model, placement: Placement) -> bool {
    model.placement == placement && !model.leaving && model.replicas > 0
}
