//! Turns what is to be done into orders for fetches and for the loader thread.
//! Books room and what is on its way; decides by `tiers`, and does nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use easel_api::engine::{DesiredModel, ModelId, RefusalReason, Tier};
use easel_checkpoints::Refusal;

use super::record::{Loaded, Place, Resting};
use super::slot::{InFlight, Next, Slot};
use super::tiers::{Device, Host, Standing, Step, World};
use super::{Residents, Room};
use crate::engine::fetching::FetchOrder;
use crate::engine::load::{Errand, Order};
use crate::pipeline::Pipeline;
use crate::scheduler::PipelineId;
use tokio_util::sync::CancellationToken;

/// At once; each may fill the network, and more would only share it.
const MAX_FETCHES: usize = 2;

/// What requests say: since when, or until when, they want what.
#[derive(Debug)]
pub(in crate::engine) struct Demand<F> {
    /// The earliest of each model that requests wait for.
    pub(in crate::engine) dues: BTreeMap<ModelId, Instant>,
    /// Bytes that admitted pictures can't do without.
    pub(in crate::engine) reserved: u64,
    /// Pictures on their way draw with it.
    pub(in crate::engine) busy: F,
}

impl<P: Pipeline> Residents<P> {
    /// The next checkpoint to fetch, if there is a place for a fetch.
    pub(in crate::engine) fn next_fetch(&mut self, now: Instant) -> Option<FetchOrder> {
        if self.fetches.len() >= MAX_FETCHES {
            return None;
        }
        let index = self.slots.iter().position(|slot| slot.is_remote() && slot.begins(now))?;
        self.slots[index].next = Next::Nothing;
        let (id, model) = (self.slots[index].id, self.slots[index].desired.clone());
        let flight = self.depart(id, &model, None, now);
        let order = FetchOrder { ticket: flight.ticket, model, unwanted: flight.unwanted.clone() };
        self.fetches.push(flight);
        Some(order)
    }

    /// The loader's next order, if it is free. One at a time, so that memory is never booked twice; and beside what
    /// pictures on their way can't do without.
    pub(in crate::engine) fn next_order(
        &mut self,
        now: Instant,
        demand: &Demand<impl Fn(PipelineId) -> bool>,
    ) -> Option<Order<P>> {
        loop {
            let standings = self.standings(now, demand);
            self.rises = standings.iter().any(|one| one.due.is_some() && one.at < Some(Tier::Device));
            let (device, host) = (self.device(demand.reserved), self.host());
            let decision = World { standings: &standings, device, host }.decide();
            self.closed = decision.closed;
            match decision.step.filter(|_| self.in_flight.is_none())? {
                Step::Move { id, to } => return self.order(id, to, demand.reserved, now),
                Step::Never { id, room_bytes } => self.refuse_for_room(id, room_bytes, now),
            }
        }
    }

    fn order(&mut self, id: PipelineId, to: Tier, reserved: u64, now: Instant) -> Option<Order<P>> {
        let slot = self.slots.iter_mut().find(|slot| slot.names(id))?;
        if slot.id == id {
            slot.next = Next::Nothing;
        }
        let mut model = slot.desired.clone();
        let room = self.room(id, to, reserved);
        let (from, errand, held) = self.take(id, to)?;
        model.checkpoint = self.resting.get(&id)?.about.checkpoint.clone();
        let flight = self.depart(id, &model, from, now);
        let (ticket, unwanted) = (flight.ticket, flight.unwanted.clone());
        let bounded = match to {
            Tier::Disk => false,
            Tier::Host => true,
            Tier::Device => self.limit_bytes > 0,
        };
        (self.in_flight, self.room) = (Some(flight), room);
        Some(Order { ticket, model, errand, room_bytes: bounded.then_some(room.given), held, unwanted })
    }

    /// What it may take where it goes: what it took before, or all that there is.
    fn room(&self, id: PipelineId, to: Tier, reserved: u64) -> Room {
        let known =
            self.resting.get(&id).filter(|resting| resting.about.risen > 0).and_then(|resting| resting.about.bytes);
        let on_device = || self.limit_bytes.saturating_sub(self.used_bytes() + reserved);
        let on_host = || self.host_bytes.saturating_sub(self.host_used_bytes());
        match (to, self.loaded.get(&id)) {
            (Tier::Device, _) => Room { given: known.unwrap_or_else(on_device), to },
            (Tier::Host, Some(loaded)) => Room { given: loaded.bytes(), to },
            (Tier::Host, None) => Room { given: known.unwrap_or_else(on_host), to },
            (Tier::Disk, _) => Room { given: 0, to },
        }
    }

    /// Takes the checkpoint out of its place, and says what is to be done with it.
    #[allow(clippy::type_complexity)]
    fn take(
        &mut self,
        id: PipelineId,
        to: Tier,
    ) -> Option<(Option<Tier>, Errand<P>, Option<Arc<easel_checkpoints::Held>>)> {
        if let Some(Loaded { pipeline, about }) = self.loaded.remove(&id) {
            let errand = if to == Tier::Host { Errand::Park(pipeline) } else { Errand::Forget(pipeline) };
            let from = Some(Tier::Device);
            self.resting.insert(id, Resting { place: Place::Moving { from, to }, about });
            return Some((from, errand, None));
        }
        let resting = self.resting.get_mut(&id)?;
        let from = resting.place.at();
        let place = std::mem::replace(&mut resting.place, Place::Moving { from, to });
        let held = resting.about.held.clone();
        let errand = match (place, to) {
            (Place::Host(parked), Tier::Device) => Errand::Wake { parked, is_new: resting.about.risen == 0 },
            (Place::Host(parked), Tier::Disk | Tier::Host) => Errand::ForgetParked(parked),
            (Place::Nowhere | Place::Disk | Place::Moving { .. }, Tier::Device) => Errand::Load,
            (Place::Nowhere | Place::Disk | Place::Moving { .. }, Tier::Host) => Errand::LoadToHost,
            (Place::Nowhere | Place::Disk | Place::Moving { .. }, Tier::Disk) => Errand::Prove,
        };
        Some((from, errand, held))
    }

    fn depart(&mut self, id: PipelineId, model: &DesiredModel, from: Option<Tier>, now: Instant) -> InFlight {
        self.next += 1;
        InFlight {
            ticket: self.next,
            id,
            access: model.access.clone(),
            from,
            began: now,
            unwanted: CancellationToken::new(),
        }
    }

    fn refuse_for_room(&mut self, id: PipelineId, room_bytes: u64, now: Instant) {
        let Some(slot) = self.slots.iter().find(|slot| slot.names(id)) else { return };
        let need_bytes = self.resting.get(&id).and_then(|resting| resting.about.bytes).unwrap_or_default();
        let source = &slot.desired.checkpoint.source;
        let message = if self.keep(slot) == Tier::Host {
            format!(
                "'{source}' needs {need_bytes} bytes and {room_bytes} of {} are free beside what is kept in the host's \
                 memory; remove a model from this pod or give it more (--host-bytes)",
                self.host_bytes
            )
        } else {
            format!(
                "'{source}' needs {need_bytes} bytes and {room_bytes} of {} are free beside what is resident; remove a \
                 model from this pod or give it more memory (--memory-bytes)",
                self.limit_bytes
            )
        };
        let access = slot.desired.access.clone();
        self.refuse(id, access.as_ref(), Refusal::new(RefusalReason::LoadFailed, message), now);
    }

    fn standings(&self, now: Instant, demand: &Demand<impl Fn(PipelineId) -> bool>) -> Vec<Standing> {
        let former = |slot: &Slot| slot.serving.filter(|id| *id != slot.id);
        let named = self.slots.iter().flat_map(|slot| [Some((slot, slot.id)), former(slot).map(|id| (slot, id))]);
        named.flatten().filter_map(|(slot, id)| self.standing(slot, id, now, demand)).collect()
    }

    fn standing(
        &self,
        slot: &Slot,
        id: PipelineId,
        now: Instant,
        demand: &Demand<impl Fn(PipelineId) -> bool>,
    ) -> Option<Standing> {
        let (at, moving, bytes, about) = match (self.loaded.get(&id), self.resting.get(&id)) {
            (Some(loaded), _) => (Some(Tier::Device), false, Some(loaded.bytes()), &loaded.about),
            (None, Some(Resting { place, about })) => (place.at(), place.moving_to().is_some(), about.bytes, about),
            (None, None) => return None,
        };
        Some(Standing {
            id,
            at,
            keep: self.keep(slot),
            bytes,
            due: demand.dues.get(&slot.desired.id).copied().filter(|_| slot.serving == Some(id)),
            busy: (demand.busy)(id),
            moving,
            may_rise: at.is_some() || slot.may_load(now),
            used: about.used,
            risen: about.risen,
        })
    }

    /// Where there is no host tier, the device is what is not below it.
    pub(super) fn keep(&self, slot: &Slot) -> Tier {
        match slot.desired.tier {
            Tier::Host if self.host_bytes == 0 => Tier::Device,
            tier => tier,
        }
    }

    fn device(&self, reserved: u64) -> Device {
        // Adapters leave as soon as nobody draws with them and a checkpoint wants their room.
        let retiring = self.retiring().filter_map(|id| self.loaded.get(&id)).map(Loaded::bytes).sum::<u64>();
        let leaving = retiring + self.beside_bytes;
        let limit = (self.limit_bytes > 0).then_some(self.limit_bytes);
        Device { limit, used: self.used_bytes() + self.given_bytes(Tier::Device), leaving, reserved }
    }

    fn host(&self) -> Host {
        Host { limit: self.host_bytes, used: self.host_used_bytes() }
    }
}
