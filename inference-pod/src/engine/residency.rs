//! Which models shall be resident, which are, and what to load next.
//! Owns the loaded pipelines; does not compute with them, and loads nothing itself.

mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use easel_api::engine::{
    Checkpoint, DesiredModel, Generation, HostMemory, LoadTimes, MAX_STEP_TIMES, MemoryReport, ModelId, ModelReport,
    ModelState, RefusalReason, Residency, StepTime, Tier, TierBytes,
};
use easel_checkpoints::{Held, Refusal};

use super::fetching::FetchOrder;
use super::load::{Event, Failure, News, Order, Ready};
use super::retry;
use super::{ResidencyError, Served};
use crate::pipeline::Pipeline;
use crate::scheduler::{Free, PipelineId, Recent, Shape, StepTimes};
use slot::{InFlight, Next, Slot, not_begun};

/// A pipeline in memory. It retires when no slot serves with it and no request draws with it.
pub(super) struct Loaded<P> {
    pub(super) pipeline: P,
    pub(super) model: ModelId,
    pub(super) checkpoint: Checkpoint,
    load: Duration,
    /// Keeps it in the cache.
    _held: Option<Held>,
    /// At the model's default size.
    pub(super) steps: Recent,
}

/// What had too little room only because pictures are being drawn is tried again after this time.
const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that a load was given, and that it was not given because pictures on their way need them.
#[derive(Clone, Copy, Default)]
struct Room {
    given: u64,
    reserved: u64,
}

/// At once; each may fill the network, and more would only share it.
const MAX_FETCHES: usize = 2;

pub(super) struct Residents<P> {
    /// 0: no limit.
    limit_bytes: u64,
    /// What adapters take beside the models.
    beside_bytes: u64,
    accepted: Option<Residency>,
    /// In the order of the residency, which is the order of loading.
    slots: Vec<Slot>,
    loaded: BTreeMap<PipelineId, Loaded<P>>,
    in_flight: Option<InFlight>,
    /// Of the load in flight.
    room: Room,
    fetches: Vec<InFlight>,
    /// Numbers tickets and pipelines.
    next: u64,
}

impl<P: Pipeline> Residents<P> {
    pub(super) fn new(limit_bytes: u64) -> Self {
        let (slots, loaded, fetches) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self {
            limit_bytes,
            beside_bytes: 0,
            accepted: None,
            slots,
            loaded,
            in_flight: None,
            room: Room::default(),
            fetches,
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

    fn slot(&self, desired: DesiredModel, former: Option<Slot>) -> Slot {
        let same = |loaded: &Loaded<P>| (&loaded.model, &loaded.checkpoint) == (&desired.id, &desired.checkpoint);
        let ready = self.loaded.iter().find(|(_, loaded)| same(loaded)).map(|(id, _)| *id);
        if ready.is_some() {
            let (state, next) = (ModelState::Ready, Next::Nothing);
            return Slot { desired, state, next, failures: 0, serving: ready, deferred: false };
        }
        match former {
            Some(slot) if slot.desired.checkpoint == desired.checkpoint => {
                let busy = self.flights().any(|flight| flight.is_of(&desired) && flight.is_wanted());
                // What was refused is tried again by any newer residency: what was missing may be there now.
                let next = if busy { Next::Nothing } else { slot.next.resumed() };
                Slot { desired, next, ..slot }
            }
            former => {
                let serving = former.and_then(|slot| slot.serving);
                let state = not_begun(&desired.checkpoint.source);
                Slot { desired, state, next: Next::Begin, failures: 0, serving, deferred: false }
            }
        }
    }

    fn flights(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter().chain(&self.fetches)
    }

    fn stop_unwanted(&mut self) {
        let Self { slots, in_flight, fetches, .. } = self;
        for flight in in_flight.iter().chain(fetches.iter()) {
            if !slots.iter().any(|slot| flight.is_of(&slot.desired)) {
                flight.unwanted.cancel();
            }
        }
        // The loader thread says when it is free; a fetch just ends.
        fetches.retain(InFlight::is_wanted);
    }

    /// The next checkpoint to fetch, if there is a place for a fetch.
    pub(super) fn next_fetch(&mut self, now: Instant) -> Option<FetchOrder> {
        if self.fetches.len() >= MAX_FETCHES {
            return None;
        }
        let leaving = self.retiring().next().is_some();
        let due = |slot: &&mut Slot| slot.is_remote() && slot.begins(now) && !(slot.deferred && leaving);
        let slot = self.slots.iter_mut().find(due)?;
        (slot.deferred, slot.next) = (false, Next::Nothing);
        self.next += 1;
        let flight = InFlight::new(self.next, &slot.desired);
        let order = FetchOrder { ticket: self.next, model: slot.desired.clone(), unwanted: flight.unwanted.clone() };
        self.fetches.push(flight);
        Some(order)
    }

    /// The next checkpoint to load, if the loader is free. One at a time, so that memory is never booked twice; and
    /// beside what pictures on their way can't do without.
    pub(super) fn next_order(&mut self, now: Instant, reserved_bytes: u64) -> Option<Order> {
        if self.in_flight.is_some() {
            return None;
        }
        let leaving = self.retiring().next().is_some();
        let beside = self.limit_bytes.saturating_sub(self.used_bytes());
        let reserved = reserved_bytes.min(beside);
        let room_bytes = (self.limit_bytes > 0).then_some(beside - reserved);
        let due = |slot: &&mut Slot| {
            let loads = matches!(slot.next, Next::Load(_)) || (!slot.is_remote() && slot.begins(now));
            loads && !(slot.deferred && leaving)
        };
        let slot = self.slots.iter_mut().find(due)?;
        slot.deferred = false;
        let held = match std::mem::replace(&mut slot.next, Next::Nothing) {
            Next::Load(held) => Some(held),
            Next::Begin | Next::Retry(_) | Next::Nothing => None,
        };
        let model = slot.desired.clone();
        self.next += 1;
        let flight = InFlight::new(self.next, &model);
        let unwanted = flight.unwanted.clone();
        self.in_flight = Some(flight);
        self.room = Room { given: room_bytes.unwrap_or_default(), reserved };
        Some(Order { ticket: self.next, model, room_bytes, held, unwanted })
    }

    /// When something is due that is not due now.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let retry = |slot: &Slot| match slot.next {
            Next::Retry(at) => Some(at),
            Next::Begin | Next::Load(_) | Next::Nothing => None,
        };
        self.slots.iter().filter_map(retry).min()
    }

    /// Books what the loader thread or a fetch says.
    pub(super) fn heard(&mut self, event: Event<P>, now: Instant) {
        let Event { ticket, news } = event;
        if let News::Progress(state) = news {
            self.progress(ticket, state);
            return;
        }
        // A fetch that nobody wants any more is not here, and what it brought is dropped.
        let Some(flight) = self.land(ticket) else { return };
        match news {
            News::Progress(_) | News::Done(Err(Failure::Cancelled)) => {}
            // A pipeline that nobody wants any more is dropped here.
            News::Done(_) if !flight.is_wanted() => {}
            News::Fetched(Ok(held)) => {
                if let Some(slot) = self.slot_of(&flight) {
                    slot.next = Next::Load(held);
                }
            }
            News::Done(Ok(ready)) => self.insert(&flight, ready),
            News::Fetched(Err(refusal)) | News::Done(Err(Failure::Refused(refusal))) => {
                self.refuse(&flight, refusal, now);
            }
            News::Done(Err(Failure::Spoilt)) => self.begin_again(&flight),
            News::Done(Err(Failure::NoRoom { need_bytes, room_bytes })) => {
                self.no_room(&flight, need_bytes, room_bytes, now);
            }
        }
    }

    /// Takes what has ended.
    fn land(&mut self, ticket: u64) -> Option<InFlight> {
        let load = self.in_flight.take_if(|load| load.ticket == ticket);
        load.or_else(|| {
            let fetch = self.fetches.iter().position(|fetch| fetch.ticket == ticket)?;
            Some(self.fetches.remove(fetch))
        })
    }

    fn progress(&mut self, ticket: u64, state: ModelState) {
        let flight = self.in_flight.iter().chain(&self.fetches).find(|flight| flight.ticket == ticket);
        if let Some(flight) = flight
            && let Some(slot) = self.slots.iter_mut().find(|slot| flight.is_of(&slot.desired))
        {
            slot.state = state;
        }
    }

    fn slot_of(&mut self, flight: &InFlight) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| flight.is_of(&slot.desired))
    }

    fn insert(&mut self, load: &InFlight, ready: Ready<P>) {
        let id = PipelineId(load.ticket);
        let Ready { pipeline, load: duration, held } = ready;
        let Some(slot) = self.slot_of(load) else { return };
        (slot.state, slot.failures) = (ModelState::Ready, 0);
        slot.serving = Some(id); // who served before retires
        tracing::info!(model = %load.model, digest = load.checkpoint.digest, load_ms = duration.as_millis() as u64, "model ready");
        let (model, checkpoint, steps) = (load.model.clone(), load.checkpoint.clone(), Recent::default());
        self.loaded.insert(id, Loaded { pipeline, model, checkpoint, load: duration, _held: held, steps });
    }

    fn refuse(&mut self, flight: &InFlight, refusal: Refusal, now: Instant) {
        let Refusal { reason, message } = refusal;
        let Some(slot) = self.slot_of(flight) else { return };
        slot.failures += 1;
        let renewed = reason == RefusalReason::Unauthorized && slot.desired.access != flight.access;
        let pause = if renewed { Some(Duration::ZERO) } else { retry::pause(reason, slot.failures) };
        slot.next = pause.map_or(Next::Nothing, |pause| Next::Retry(now + pause));
        let again = pause.map(|pause| pause.as_secs());
        tracing::warn!(model = %flight.model, digest = flight.checkpoint.digest, ?reason, message, again, "model refused");
        slot.state = ModelState::Refused { reason, message };
    }

    /// What was in the cache was not the checkpoint, and is not there any more.
    fn begin_again(&mut self, load: &InFlight) {
        if let Some(slot) = self.slot_of(load) {
            (slot.state, slot.next) = (not_begun(&load.checkpoint.source), Next::Begin);
        }
    }

    fn no_room(&mut self, load: &InFlight, need_bytes: u64, room_bytes: u64, now: Instant) {
        let used_then = self.limit_bytes.saturating_sub(room_bytes + self.room.reserved);
        if need_bytes <= room_bytes + self.room.reserved {
            if let Some(slot) = self.slot_of(load) {
                (slot.state, slot.next) = (not_begun(&load.checkpoint.source), Next::Retry(now + ROOM_PAUSE));
            }
            return;
        }
        if self.retiring().next().is_some() || self.used_bytes() < used_then {
            if let Some(slot) = self.slot_of(load) {
                (slot.state, slot.next, slot.deferred) = (not_begun(&load.checkpoint.source), Next::Begin, true);
            }
            return;
        }
        let message = format!(
            "'{}' needs {need_bytes} bytes and {} of {} are free beside what is resident; remove a model from \
             this pod or give it more memory (--memory-bytes)",
            load.checkpoint.source,
            room_bytes + self.room.reserved,
            self.limit_bytes
        );
        self.refuse(load, Refusal::new(RefusalReason::LoadFailed, message), now);
    }

    fn retiring(&self) -> impl Iterator<Item = PipelineId> {
        let serving: BTreeSet<_> = self.slots.iter().filter_map(|slot| slot.serving).collect();
        self.loaded.keys().copied().filter(move |id| !serving.contains(id))
    }

    /// Drops pipelines that nothing serves with and nobody draws with; true if there were any.
    pub(super) fn retire(&mut self, in_use: impl Fn(PipelineId) -> bool) -> bool {
        let before = self.loaded.len();
        for id in self.retiring().filter(|id| !in_use(*id)).collect::<Vec<_>>() {
            if let Some(gone) = self.loaded.remove(&id) {
                tracing::info!(model = %gone.model, digest = gone.checkpoint.digest, "model left");
            }
        }
        self.loaded.len() < before
    }

    /// Of adapters, which are not resident by themselves.
    pub(super) fn set_beside(&mut self, bytes: u64) {
        self.beside_bytes = bytes;
    }

    /// Whether there is a limit and a checkpoint to be loaded next.
    pub(super) fn wants_room(&self, now: Instant) -> bool {
        let loads = |slot: &Slot| matches!(slot.next, Next::Load(_)) || (!slot.is_remote() && slot.begins(now));
        self.limit_bytes > 0 && self.slots.iter().any(loads)
    }

    fn used_bytes(&self) -> u64 {
        self.beside_bytes + self.loaded.values().map(|loaded| loaded.pipeline.memory_bytes()).sum::<u64>()
    }

    /// What there is for pictures on their way.
    pub(super) fn free(&self) -> Option<Free> {
        let at_best = self.limit_bytes.saturating_sub(self.used_bytes());
        let given = if self.in_flight.is_some() { self.room.given } else { 0 };
        (self.limit_bytes > 0).then_some(Free { now: at_best.saturating_sub(given), at_best })
    }

    pub(super) fn is_loaded(&self, id: PipelineId) -> bool {
        self.loaded.contains_key(&id)
    }

    /// Who draws for this model.
    pub(super) fn serving(&self, model: &ModelId) -> Option<PipelineId> {
        self.slots.iter().find(|slot| slot.desired.id == *model)?.serving
    }

    pub(super) fn loaded(&self, id: PipelineId) -> Option<&Loaded<P>> {
        self.loaded.get(&id)
    }

    pub(super) fn loaded_mut(&mut self, id: PipelineId) -> Option<&mut Loaded<P>> {
        self.loaded.get_mut(&id)
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

    /// Beside what pictures on their way can't do without.
    pub(super) fn memory(&self, reserved_bytes: u64) -> MemoryReport {
        let used_bytes = self.used_bytes();
        let free_bytes = self.limit_bytes.saturating_sub(used_bytes + reserved_bytes);
        MemoryReport { total_bytes: self.limit_bytes, used_bytes, free_bytes, host: HostMemory::default() }
    }

    /// During a swap a model has two reports: the former checkpoint, which serves, and then the desired one.
    pub(super) fn reports(&self, times: &StepTimes) -> Vec<ModelReport> {
        let mut reports = Vec::new();
        for slot in &self.slots {
            let loaded = slot.serving.and_then(|id| self.loaded.get(&id));
            let step_times = slot.serving.map(|id| step_times(id, times)).unwrap_or_default();
            let report = |digest: &str, state: ModelState, loaded: Option<&Loaded<P>>| ModelReport {
                id: slot.desired.id.clone(),
                digest: digest.to_owned(),
                state,
                step_ms: loaded.and_then(|loaded| loaded.steps.median()).map(millis),
                load_ms: loaded.map(|loaded| loaded.load.as_millis() as u64),
                tier: loaded.map(|_| Tier::Device),
                moving_to: None,
                bytes: TierBytes {
                    device: loaded.map_or(0, |loaded| loaded.pipeline.memory_bytes()),
                    ..TierBytes::default()
                },
                load_times: LoadTimes {
                    disk_to_device: loaded.map(|loaded| loaded.load.as_millis() as u64),
                    ..LoadTimes::default()
                },
                awaited: 0,
                tasks: loaded.map(|loaded| loaded.pipeline.tasks().to_vec()).unwrap_or_default(),
                step_times: if loaded.is_some() { step_times.clone() } else { Vec::new() },
                adapters: Vec::new(),
            };
            let desired = &slot.desired.checkpoint;
            match loaded {
                Some(former) if former.checkpoint != *desired => {
                    reports.push(report(&former.checkpoint.digest, ModelState::Ready, loaded));
                    reports.push(report(&desired.digest, slot.state.clone(), None));
                }
                Some(_) | None => reports.push(report(&desired.digest, slot.state.clone(), loaded)),
            }
        }
        reports
    }

    pub(super) fn served(&self) -> BTreeMap<ModelId, Served> {
        let served = |slot: &Slot| {
            let loaded = self.loaded.get(&slot.serving?)?;
            let DesiredModel { id, checkpoint: _, access: _, defaults, limits, tier: _, adapters: _ } =
                slot.desired.clone();
            let tasks = loaded.pipeline.tasks().to_vec();
            Some((id, Served { defaults, limits, tasks, digest: loaded.checkpoint.digest.clone() }))
        };
        self.slots.iter().filter_map(served).collect()
    }
}

fn step_times(pipeline: PipelineId, times: &StepTimes) -> Vec<StepTime> {
    let of_it = times.latest().into_iter().filter(|(shape, _)| shape.pipeline == pipeline);
    let step_time = |(shape, time): (Shape, Duration)| StepTime {
        height: shape.key.height,
        width: shape.key.width,
        rows: shape.key.rows,
        batch: shape.jobs as u32,
        ms: millis(time),
    };
    of_it.take(MAX_STEP_TIMES).map(step_time).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
