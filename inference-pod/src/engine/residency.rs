//! Which models shall be resident, which are, and what to load next.
//! Owns the loaded pipelines; does not compute with them, and loads nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use easel_api::engine::{
    Checkpoint, DesiredModel, Generation, MemoryReport, ModelId, ModelReport, ModelState, RefusalReason, Residency,
};

use super::load::{Event, Failure, News, Order, Ready};
use super::step_times::StepTimes;
use super::{ResidencyError, Served};
use crate::checkpoint::Refusal;
use crate::pipeline::Pipeline;
use crate::scheduler::PipelineId;

/// A pipeline in memory. It retires when no slot serves with it and no request draws with it.
pub(super) struct Loaded<P> {
    pub(super) pipeline: P,
    pub(super) model: ModelId,
    pub(super) checkpoint: Checkpoint,
    load: Duration,
    /// At the model's default size.
    pub(super) steps: StepTimes,
}

/// One desired model.
struct Slot {
    desired: DesiredModel,
    /// Of the desired checkpoint.
    state: ModelState,
    /// Who draws: the desired checkpoint, or the former one until that is ready.
    serving: Option<PipelineId>,
    /// Did not fit while others were about to leave; is tried again when they have left.
    deferred: bool,
}

/// The load that the loader thread is at.
struct InFlight {
    ticket: u64,
    model: ModelId,
    checkpoint: Checkpoint,
    wanted: Arc<AtomicBool>,
}

pub(super) struct Residents<P> {
    /// 0: no limit.
    limit_bytes: u64,
    accepted: Option<Residency>,
    /// In the order of the residency, which is the order of loading.
    slots: Vec<Slot>,
    loaded: BTreeMap<PipelineId, Loaded<P>>,
    in_flight: Option<InFlight>,
    /// Numbers tickets and pipelines.
    next: u64,
}

const NOT_BEGUN: ModelState = ModelState::Verifying { done_bytes: 0, total_bytes: 0 };

impl<P: Pipeline> Residents<P> {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, accepted: None, slots: Vec::new(), loaded: BTreeMap::new(), in_flight: None, next: 0 }
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
        self.stop_unwanted_load();
        Ok(())
    }

    fn slot(&self, desired: DesiredModel, former: Option<Slot>) -> Slot {
        let same = |model: &ModelId, checkpoint: &Checkpoint| (model, checkpoint) == (&desired.id, &desired.checkpoint);
        let ready = self.loaded.iter().find(|(_, loaded)| same(&loaded.model, &loaded.checkpoint)).map(|(id, _)| *id);
        if ready.is_some() {
            return Slot { desired, state: ModelState::Ready, serving: ready, deferred: false };
        }
        let loading =
            self.in_flight.as_ref().is_some_and(|load| same(&load.model, &load.checkpoint) && load.is_wanted());
        let (state, serving) = match former {
            Some(slot) if loading => (slot.state, slot.serving),
            Some(slot) => (NOT_BEGUN, slot.serving),
            None => (NOT_BEGUN, None),
        };
        Slot { desired, state, serving, deferred: false }
    }

    fn stop_unwanted_load(&self) {
        let Some(load) = &self.in_flight else { return };
        let wants = |slot: &Slot| (&slot.desired.id, &slot.desired.checkpoint) == (&load.model, &load.checkpoint);
        if !self.slots.iter().any(wants) {
            load.wanted.store(false, Ordering::Relaxed);
        }
    }

    /// The next checkpoint to load, if the loader is free. One at a time, so that memory is never booked twice.
    pub(super) fn next_order(&mut self) -> Option<Order> {
        if self.in_flight.is_some() {
            return None;
        }
        let leaving = self.retiring().next().is_some();
        let slot = self.slots.iter_mut().find(|slot| slot.state == NOT_BEGUN && !(slot.deferred && leaving))?;
        slot.deferred = false;
        let model = slot.desired.clone();
        self.next += 1;
        let wanted = Arc::new(AtomicBool::new(true));
        let (id, checkpoint) = (model.id.clone(), model.checkpoint.clone());
        self.in_flight = Some(InFlight { ticket: self.next, model: id, checkpoint, wanted: wanted.clone() });
        let room_bytes = (self.limit_bytes > 0).then(|| self.limit_bytes.saturating_sub(self.used_bytes()));
        Some(Order { ticket: self.next, model, room_bytes, wanted })
    }

    /// Books what the loader thread says.
    pub(super) fn heard(&mut self, event: Event<P>) {
        let Event { ticket, news } = event;
        let Some(load) = self.in_flight.take_if(|load| load.ticket == ticket) else { return };
        match news {
            News::Progress(state) => {
                self.set_state(&load, state);
                self.in_flight = Some(load);
            }
            // A pipeline that nobody wants any more is dropped here.
            News::Done(_) if !load.is_wanted() => {}
            News::Done(Ok(ready)) => self.insert(&load, ready),
            News::Done(Err(Failure::Cancelled)) => {}
            News::Done(Err(Failure::Refused(refusal))) => self.refuse(&load, refusal),
            News::Done(Err(Failure::NoRoom { need_bytes, room_bytes })) => self.no_room(&load, need_bytes, room_bytes),
        }
    }

    fn slot_of(&mut self, load: &InFlight) -> Option<&mut Slot> {
        let wants = |slot: &&mut Slot| slot.desired.id == load.model && slot.desired.checkpoint == load.checkpoint;
        self.slots.iter_mut().find(wants)
    }

    fn set_state(&mut self, load: &InFlight, state: ModelState) {
        if let Some(slot) = self.slot_of(load) {
            slot.state = state;
        }
    }

    fn insert(&mut self, load: &InFlight, ready: Ready<P>) {
        let id = PipelineId(load.ticket);
        let Ready { pipeline, load: duration } = ready;
        let Some(slot) = self.slot_of(load) else { return };
        slot.state = ModelState::Ready;
        slot.serving = Some(id); // who served before retires
        tracing::info!(model = %load.model, digest = load.checkpoint.digest, load_ms = duration.as_millis() as u64, "model ready");
        let (model, checkpoint) = (load.model.clone(), load.checkpoint.clone());
        self.loaded.insert(id, Loaded { pipeline, model, checkpoint, load: duration, steps: StepTimes::default() });
    }

    fn refuse(&mut self, load: &InFlight, refusal: Refusal) {
        let Refusal { reason, message } = refusal;
        tracing::warn!(model = %load.model, digest = load.checkpoint.digest, ?reason, message, "model refused");
        self.set_state(load, ModelState::Refused { reason, message });
    }

    fn no_room(&mut self, load: &InFlight, need_bytes: u64, room_bytes: u64) {
        if self.retiring().next().is_some() || self.used_bytes() < self.limit_bytes.saturating_sub(room_bytes) {
            if let Some(slot) = self.slot_of(load) {
                (slot.state, slot.deferred) = (NOT_BEGUN, true);
            }
            return;
        }
        let message = format!(
            "'{}' needs {need_bytes} bytes and {room_bytes} of {} are free beside what is resident; remove a model from \
             this pod or give it more memory (--memory-bytes)",
            load.checkpoint.path, self.limit_bytes
        );
        self.refuse(load, Refusal::new(RefusalReason::LoadFailed, message));
    }

    fn retiring(&self) -> impl Iterator<Item = PipelineId> {
        let serving: BTreeSet<_> = self.slots.iter().filter_map(|slot| slot.serving).collect();
        self.loaded.keys().copied().filter(move |id| !serving.contains(id))
    }

    /// Drops pipelines that nothing serves with and nobody draws with.
    pub(super) fn retire(&mut self, in_use: impl Fn(PipelineId) -> bool) {
        for id in self.retiring().filter(|id| !in_use(*id)).collect::<Vec<_>>() {
            if let Some(gone) = self.loaded.remove(&id) {
                tracing::info!(model = %gone.model, digest = gone.checkpoint.digest, "model left");
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        self.loaded.values().map(|loaded| loaded.pipeline.memory_bytes()).sum()
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

    pub(super) fn memory(&self) -> MemoryReport {
        MemoryReport { total_bytes: self.limit_bytes, used_bytes: self.used_bytes() }
    }

    /// During a swap a model has two reports: the former checkpoint, which serves, and then the desired one.
    pub(super) fn reports(&self) -> Vec<ModelReport> {
        let mut reports = Vec::new();
        for slot in &self.slots {
            let loaded = slot.serving.and_then(|id| self.loaded.get(&id));
            let report = |digest: &str, state: ModelState, loaded: Option<&Loaded<P>>| ModelReport {
                id: slot.desired.id.clone(),
                digest: digest.to_owned(),
                state,
                step_ms: loaded.and_then(|loaded| loaded.steps.mean_ms()),
                load_ms: loaded.map(|loaded| loaded.load.as_millis() as u64),
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
            let DesiredModel { id, checkpoint: _, defaults, limits } = slot.desired.clone();
            Some((id, Served { defaults, limits, digest: loaded.checkpoint.digest.clone() }))
        };
        self.slots.iter().filter_map(served).collect()
    }
}

impl InFlight {
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}
