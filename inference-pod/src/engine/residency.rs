//! Which models shall be resident, which are and in which tier, and what to fetch, load or move next.
//! Owns the checkpoints in every tier; does not compute with them, and loads nothing itself.

mod news;
mod orders;
mod record;
mod report;
mod slot;
mod tiers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use easel_api::engine::{DesiredModel, Generation, ModelId, ModelState, Residency, Tier};

use super::{ResidencyError, Served};
use crate::pipeline::Pipeline;
use crate::scheduler::{Free, PipelineId};
pub(super) use news::Moved;
pub(super) use orders::Demand;
pub(super) use record::Loaded;
use record::{About, Place, Resting};
use slot::{InFlight, Next, Slot, not_begun};

/// Bytes that the order in flight was given, and where.
#[derive(Clone, Copy)]
struct Room {
    given: u64,
    to: Tier,
}

/// What a request finds.
pub(super) enum Door {
    /// Its model draws.
    Open,
    /// Its model answers, and is to come to the device first, or takes nothing new for now.
    Waits,
    /// Nobody answers for it.
    Shut,
}

pub(super) struct Residents<P: Pipeline> {
    /// Of the device; 0: no limit.
    limit_bytes: u64,
    /// What adapters take beside the models.
    beside_bytes: u64,
    /// Of the host; 0: there is no host tier.
    host_bytes: u64,
    accepted: Option<Residency>,
    /// In the order of the residency, which is the order of loading.
    slots: Vec<Slot>,
    loaded: BTreeMap<PipelineId, Loaded<P>>,
    resting: BTreeMap<PipelineId, Resting<P::Parked>>,
    /// Take nothing new but what is due before.
    closed: BTreeMap<PipelineId, Option<Instant>>,
    /// A request waits for a checkpoint that is not on the device.
    rises: bool,
    in_flight: Option<InFlight>,
    room: Room,
    fetches: Vec<InFlight>,
    /// Numbers tickets, checkpoints and uses.
    next: u64,
}

impl<P: Pipeline> Residents<P> {
    pub(super) fn new(limit_bytes: u64, host_bytes: u64) -> Self {
        Self {
            limit_bytes,
            host_bytes,
            beside_bytes: 0,
            accepted: None,
            slots: Vec::new(),
            loaded: BTreeMap::new(),
            resting: BTreeMap::new(),
            closed: BTreeMap::new(),
            rises: false,
            in_flight: None,
            room: Room { given: 0, to: Tier::Device },
            fetches: Vec::new(),
            next: 0,
        }
    }

    /// Replaces the desired models. The same residency again changes nothing; refused models are tried again by any
    /// newer one, because what was missing may be there now.
    pub(super) fn apply(&mut self, residency: Residency) -> Result<(), ResidencyError> {
        match &self.accepted {
            Some(held) if *held == residency => return Ok(()),
            Some(held) if held.generation >= residency.generation => {
                return Err(ResidencyError::Stale { sent: residency.generation, held: held.generation });
            }
            Some(_) | None => {}
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = residency.models.iter().find(|model| !seen.insert(&model.id)) {
            return Err(ResidencyError::Duplicate(twice.id.clone()));
        }
        let mut former: BTreeMap<_, _> =
            std::mem::take(&mut self.slots).into_iter().map(|slot| (slot.desired.id.clone(), slot)).collect();
        for desired in &residency.models {
            let slot = self.slot(desired.clone(), former.remove(&desired.id));
            self.slots.push(slot);
        }
        self.accepted = Some(residency);
        self.stop_unwanted();
        Ok(())
    }

    fn slot(&mut self, desired: DesiredModel, former: Option<Slot>) -> Slot {
        if let Some(id) = self.ready(&desired) {
            let (state, next) = (ModelState::Ready, Next::Nothing);
            return Slot { desired, id, state, next, failures: 0, serving: Some(id) };
        }
        match former {
            Some(slot) if slot.desired.checkpoint == desired.checkpoint => {
                let busy = self.flights().any(|flight| flight.id == slot.id && flight.is_wanted());
                // What was refused is tried again by any newer residency: what was missing may be there now.
                let next = if busy { Next::Nothing } else { slot.next.resumed() };
                Slot { desired, next, ..slot }
            }
            former => {
                let serving = former.and_then(|slot| slot.serving);
                let state = not_begun(&desired.checkpoint.source);
                self.next += 1;
                let id = PipelineId(self.next);
                let about = About::new(desired.id.clone(), desired.checkpoint.clone());
                self.resting.insert(id, Resting { place: Place::Nowhere, about });
                Slot { desired, id, state, next: Next::Begin, failures: 0, serving }
            }
        }
    }

    /// The checkpoint, where it is ready in any tier.
    fn ready(&self, desired: &DesiredModel) -> Option<PipelineId> {
        let same = |about: &About| (&about.model, &about.checkpoint) == (&desired.id, &desired.checkpoint);
        let loaded = self.loaded.iter().filter(|(_, loaded)| same(&loaded.about)).map(|(id, _)| *id);
        let wanted = |id: PipelineId| self.flights().all(|flight| flight.id != id || flight.is_wanted());
        let rests = |(id, resting): &(&PipelineId, &Resting<P::Parked>)| {
            resting.place.at().is_some() && same(&resting.about) && wanted(**id)
        };
        loaded.chain(self.resting.iter().filter(rests).map(|(id, _)| *id)).next()
    }

    fn flights(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter().chain(&self.fetches)
    }

    fn stop_unwanted(&mut self) {
        let Self { slots, in_flight, fetches, .. } = self;
        for flight in in_flight.iter().chain(fetches.iter()) {
            if !slots.iter().any(|slot| slot.names(flight.id)) {
                flight.unwanted.cancel();
            }
        }
        // The loader thread says when it is free; a fetch just ends.
        fetches.retain(InFlight::is_wanted);
    }

    /// When something is due that is not due now.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let retry = |slot: &Slot| match slot.next {
            Next::Retry(at) => Some(at),
            Next::Begin | Next::Load | Next::Nothing => None,
        };
        self.slots.iter().filter_map(retry).min()
    }

    fn retiring(&self) -> impl Iterator<Item = PipelineId> {
        self.loaded.keys().copied().filter(|id| !self.is_named(*id))
    }

    fn is_named(&self, id: PipelineId) -> bool {
        self.slots.iter().any(|slot| slot.names(id))
    }

    /// Drops checkpoints that no slot names and nobody draws with; true if there were any.
    pub(super) fn retire(&mut self, in_use: impl Fn(PipelineId) -> bool) -> bool {
        let before = self.loaded.len() + self.resting.len();
        for id in self.retiring().filter(|id| !in_use(*id)).collect::<Vec<_>>() {
            if let Some(Loaded { pipeline: _, about }) = self.loaded.remove(&id) {
                tracing::info!(model = %about.model, digest = about.checkpoint.digest, "model left");
            }
        }
        let Self { slots, resting, .. } = self;
        // What moves is the loader's, and is dropped when it lands.
        resting.retain(|id, resting| resting.place.moving_to().is_some() || slots.iter().any(|slot| slot.names(*id)));
        self.loaded.len() + self.resting.len() < before
    }

    /// Of adapters, which are not resident by themselves.
    pub(super) fn set_beside(&mut self, bytes: u64) {
        self.beside_bytes = bytes;
    }

    /// Whether there is a limit and a checkpoint that is to come to the device next.
    pub(super) fn wants_room(&self, now: Instant) -> bool {
        self.limit_bytes > 0 && (self.rises || self.slots.iter().any(|slot| slot.may_load(now)))
    }

    fn used_bytes(&self) -> u64 {
        let leaves =
            |resting: &&Resting<_>| resting.place.moving_to().is_some() && resting.place.at() == Some(Tier::Device);
        let leaving = self.resting.values().filter(leaves).filter_map(|resting| resting.about.bytes);
        self.beside_bytes + self.loaded.values().map(Loaded::bytes).chain(leaving).sum::<u64>()
    }

    fn host_used_bytes(&self) -> u64 {
        let there = self.resting.values().filter(|resting| resting.place.at() == Some(Tier::Host));
        there.filter_map(|resting| resting.about.bytes).sum::<u64>() + self.given_bytes(Tier::Host)
    }

    fn given_bytes(&self, tier: Tier) -> u64 {
        if self.in_flight.is_some() && self.room.to == tier { self.room.given } else { 0 }
    }

    /// What there is for pictures on their way: now, and when all have gone that may, but the largest of them, which may
    /// be the one that draws.
    pub(super) fn free(&self) -> Option<Free> {
        let used = self.used_bytes();
        let goes = self.slots.iter().filter(|slot| slot.desired.tier == Tier::Disk).filter_map(|slot| slot.serving);
        let going: Vec<_> = goes.filter_map(|id| self.loaded.get(&id)).map(Loaded::bytes).collect();
        let stays = used - going.iter().sum::<u64>() + going.iter().max().copied().unwrap_or_default();
        let free = |taken: u64| self.limit_bytes.saturating_sub(taken);
        (self.limit_bytes > 0).then(|| Free { now: free(used + self.given_bytes(Tier::Device)), at_best: free(stays) })
    }

    pub(super) fn is_known(&self, id: PipelineId) -> bool {
        self.loaded.contains_key(&id) || self.resting.contains_key(&id)
    }

    /// What a request for this model finds that is due at this time.
    pub(super) fn door(&self, model: &ModelId, due: Instant) -> Door {
        let slot = self.slots.iter().find(|slot| slot.desired.id == *model);
        let Some(id) = slot.and_then(|slot| slot.serving) else { return Door::Shut };
        let open = self.closed.get(&id).is_none_or(|until| until.is_some_and(|until| due < until));
        if open && self.loaded.contains_key(&id) { Door::Open } else { Door::Waits }
    }

    /// Who draws for this model, if that is on the device.
    pub(super) fn serving(&self, model: &ModelId) -> Option<PipelineId> {
        let id = self.slots.iter().find(|slot| slot.desired.id == *model)?.serving?;
        self.loaded.contains_key(&id).then_some(id)
    }

    pub(super) fn loaded_mut(&mut self, id: PipelineId) -> Option<&mut Loaded<P>> {
        self.loaded.get_mut(&id)
    }

    pub(super) fn loaded(&self, id: PipelineId) -> Option<&Loaded<P>> {
        self.loaded.get(&id)
    }

    /// Books a step or a request.
    pub(super) fn used(&mut self, id: PipelineId, at_default_size: Option<Duration>) {
        self.next += 1;
        if let Some(loaded) = self.loaded.get_mut(&id) {
            loaded.about.used = self.next;
            if let Some(step) = at_default_size {
                loaded.about.steps.push(step);
            }
        }
    }

    pub(super) fn desired(&self, model: &ModelId) -> Option<&DesiredModel> {
        self.slots.iter().map(|slot| &slot.desired).find(|desired| desired.id == *model)
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    pub(super) fn generation(&self) -> Generation {
        self.accepted.as_ref().map(|residency| residency.generation).unwrap_or_default()
    }

    pub(super) fn served(&self) -> BTreeMap<ModelId, Served> {
        let served = |slot: &Slot| {
            let about = self.about(slot.serving?)?;
            let DesiredModel { id, checkpoint: _, access: _, defaults, limits, tier: _, adapters: _ } =
                slot.desired.clone();
            Some((
                id,
                Served { defaults, limits, tasks: about.likely_tasks(), digest: about.checkpoint.digest.clone() },
            ))
        };
        self.slots.iter().filter_map(served).collect()
    }

    fn about(&self, id: PipelineId) -> Option<&About> {
        let rests = || self.resting.get(&id).map(|resting| &resting.about);
        self.loaded.get(&id).map(|loaded| &loaded.about).or_else(rests)
    }

    fn at(&self, id: PipelineId) -> Option<Tier> {
        let rests = || self.resting.get(&id).and_then(|resting| resting.place.at());
        self.loaded.get(&id).map(|_| Tier::Device).or_else(rests)
    }
}
