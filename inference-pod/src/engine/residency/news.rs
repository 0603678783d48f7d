//! Books what the loader thread and fetches say.
//! Knows how a fetch, a load or a move can end; does not decide what is next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use easel_api::engine::{Access, ModelState, RefusalReason, Tier};
use easel_checkpoints::{Held, Refusal};

use super::Residents;
use super::record::{Loaded, Place, Resting};
use super::slot::{InFlight, Next, Slot};
use crate::engine::load::{Event, Failure, Landed, News, Ready};
use crate::engine::retry;
use crate::pipeline::Pipeline;
use crate::scheduler::PipelineId;

/// A checkpoint that came to another tier.
pub(in crate::engine) struct Moved {
    pub(in crate::engine) from: Option<Tier>,
    pub(in crate::engine) to: Tier,
    pub(in crate::engine) took: Duration,
}

impl<P: Pipeline> Residents<P> {
    pub(in crate::engine) fn heard(&mut self, event: Event<P>, now: Instant) -> Option<Moved> {
        let Event { ticket, news } = event;
        if let News::Progress(state) = news {
            self.progress(ticket, state);
            return None;
        }
        // A fetch that nobody wants any more is not here, and what it brought is dropped.
        let flight = self.land(ticket)?;
        match news {
            News::Progress(_) => {}
            // A checkpoint that nobody wants any more, or wants again only now, is dropped here.
            News::Done(_) if !flight.is_wanted() => self.forget(&flight),
            News::Done(Err(Failure::Cancelled)) => self.forget(&flight),
            News::Fetched(Ok(held)) => self.fetched(&flight, held, now),
            News::Done(Ok(ready)) => return self.settle(&flight, ready),
            News::Fetched(Err(refusal)) | News::Done(Err(Failure::Refused(refusal))) => {
                self.refuse(flight.id, flight.access.as_ref(), refusal, now);
            }
            News::Done(Err(Failure::Spoilt)) => self.begin_again(flight.id),
            News::Done(Err(Failure::NoRoom { need_bytes })) => self.no_room(&flight, need_bytes),
        }
        None
    }

    /// Takes what has ended.
    fn land(&mut self, ticket: u64) -> Option<InFlight> {
        let load = self.in_flight.take_if(|load| load.ticket == ticket);
        load.or_else(|| {
            let fetch = self.fetches.iter().position(|fetch| fetch.ticket == ticket)?;
            Some(self.fetches.remove(fetch))
        })
    }

    /// What moves between tiers stays ready meanwhile.
    fn progress(&mut self, ticket: u64, state: ModelState) {
        let flight = self.in_flight.iter().chain(&self.fetches).find(|flight| flight.ticket == ticket);
        if let Some(flight) = flight.filter(|flight| flight.from.is_none())
            && let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == flight.id)
        {
            slot.state = state;
        }
    }

    fn slot_of(&mut self, id: PipelineId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn forget(&mut self, flight: &InFlight) {
        self.begin_again(flight.id);
        if !self.is_named(flight.id) {
            self.resting.remove(&flight.id);
        }
    }

    fn fetched(&mut self, flight: &InFlight, held: Held, now: Instant) {
        let Some(Resting { place, about }) = self.resting.get_mut(&flight.id) else { return };
        about.took(None, Tier::Disk, now.saturating_duration_since(flight.began));
        about.disk_bytes = held.verified.total_bytes;
        about.held = Some(Arc::new(held));
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == flight.id) else { return };
        if slot.desired.tier == Tier::Disk {
            *place = Place::Disk;
            slot.serve();
        } else {
            slot.next = Next::Load;
        }
    }

    fn settle(&mut self, flight: &InFlight, ready: Ready<P>) -> Option<Moved> {
        let Ready { landed, took, disk_bytes } = ready;
        let Resting { place: _, mut about } = self.resting.remove(&flight.id)?;
        about.disk_bytes = disk_bytes.unwrap_or(about.disk_bytes);
        let to = match &landed {
            Landed::Device(_) => Tier::Device,
            Landed::Host(_) => Tier::Host,
            Landed::Disk => Tier::Disk,
        };
        about.took(flight.from, to, took);
        let (model, digest, load_ms) = (about.model.clone(), about.checkpoint.digest.clone(), took.as_millis() as u64);
        match landed {
            Landed::Device(pipeline) => {
                self.next += 1;
                (about.risen, about.used, about.bytes) = (self.next, self.next, Some(pipeline.memory_bytes()));
                about.tasks = pipeline.tasks().to_vec();
                self.loaded.insert(flight.id, Loaded { pipeline, about });
            }
            Landed::Host(parked) => {
                about.bytes = Some(P::parked_bytes(&parked));
                self.resting.insert(flight.id, Resting { place: Place::Host(parked), about });
            }
            Landed::Disk => {
                self.resting.insert(flight.id, Resting { place: Place::Disk, about });
            }
        }
        if let Some(slot) = self.slot_of(flight.id).filter(|slot| slot.serving != Some(flight.id)) {
            slot.serve();
            tracing::info!(%model, digest, load_ms, tier = to.as_str(), "model ready");
        } else {
            tracing::info!(%model, digest, load_ms, tier = to.as_str(), "model moved");
        }
        Some(Moved { from: flight.from, to, took })
    }

    pub(super) fn refuse(&mut self, id: PipelineId, sent: Option<&Access>, refusal: Refusal, now: Instant) {
        self.begin_again(id);
        let Refusal { reason, message } = refusal;
        let Some(slot) = self.slot_of(id) else { return };
        slot.failures += 1;
        let renewed = reason == RefusalReason::Unauthorized && slot.desired.access.as_ref() != sent;
        let pause = if renewed { Some(Duration::ZERO) } else { retry::pause(reason, slot.failures) };
        slot.next = pause.map_or(Next::Nothing, |pause| Next::Retry(now + pause));
        let (model, digest) = (&slot.desired.id, &slot.desired.checkpoint.digest);
        let again = pause.map(|pause| pause.as_secs());
        tracing::warn!(%model, digest, ?reason, message, again, "model refused");
        slot.state = ModelState::Refused { reason, message };
    }

    /// It is not where it was, in any tier. A former checkpoint does not come back.
    fn begin_again(&mut self, id: PipelineId) {
        if let Some(Resting { place, about }) = self.resting.get_mut(&id) {
            (*place, about.held) = (Place::Nowhere, None);
        }
        match self.slots.iter_mut().find(|slot| slot.names(id)) {
            Some(slot) if slot.id == id => slot.reset(Next::Begin),
            Some(slot) => slot.serving = None,
            None => {}
        }
    }

    /// It says what it needs; room is made for that, or it is refused for good.
    fn no_room(&mut self, flight: &InFlight, need_bytes: u64) {
        let Some(Resting { place, about }) = self.resting.get_mut(&flight.id) else { return };
        about.bytes = Some(need_bytes);
        *place = if flight.from.is_some() { Place::Disk } else { Place::Nowhere };
        let fetched = about.held.is_some();
        if let Some(slot) = self.slot_of(flight.id).filter(|_| flight.from.is_none()) {
            slot.next = if fetched { Next::Load } else { Next::Begin };
        }
    }
}
