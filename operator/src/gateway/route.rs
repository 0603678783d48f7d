//! Picks a pod for a job with the planner's `route`, and books it until the job is done there.
//! Owns what this gateway has sent and who is next in line; does not know HTTP, and never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use easel_planner::route::{Ask, Endpoint, Pick, Rejection, pick};
use easel_planner::{ModelId, ReplicaId};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::gateway::admit::Job;
use crate::routing_table::{Pod, RoutingTable};

/// How long a pod that said 429 is taken to be full, by every request: its report says so before that ends.
const BUSY: Duration = Duration::from_millis(250);

/// What a request is served by: the earliest deadline first, then who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    deadline: Instant,
    number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// Rings when room may have come: a booking ended, or somebody left the line.
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<ReplicaId, Slot>,
    /// Those that found every queue full, by model. Only these are waited for by others: one that waits for a load or has
    /// been failed by every pod does not need the room that the next one could use.
    line: BTreeMap<ModelId, BTreeSet<Place>>,
    numbers: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Pictures that this gateway has sent and not got back.
    booked: u32,
    full_until: Option<Instant>,
}

/// Why a job has no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// Every queue is full, and others wait for room before it.
    Behind,
    Rejected(Rejection),
}

/// Room for a job on one pod. Given back when dropped.
#[derive(Debug)]
pub(super) struct Booking {
    desk: Arc<Desk>,
    pictures: u32,
    pub(super) pod: Pod,
    pub(super) pick: Pick,
}

/// A place among those that wait for room. Given up when dropped.
#[derive(Debug)]
pub(super) struct InLine {
    desk: Arc<Desk>,
    model: ModelId,
    place: Place,
}

impl Desk {
    pub(super) fn place(&self, deadline: Instant) -> Place {
        let mut state = self.state();
        state.numbers += 1;
        Place { deadline, number: state.numbers }
    }

    /// Made before one looks for room, so that no ring is missed.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// Selects, then books, in one turn of the lock: two requests never get the same room.
    pub(super) fn book(
        self: &Arc<Self>,
        table: &RoutingTable,
        job: &Job,
        tried: &BTreeSet<ReplicaId>,
        place: Place,
    ) -> Result<Booking, NotNow> {
        let mut state = self.state();
        if state.line.get(&job.model).and_then(BTreeSet::first).is_some_and(|first| *first < place) {
            return Err(NotNow::Behind);
        }
        let endpoints: Vec<Endpoint> = table.pods.values().map(|pod| state.seen(&pod.endpoint, &job.model)).collect();
        let ask = Ask { model: &job.model, pictures: job.pictures, steps: job.steps, tried };
        let picked = pick(&endpoints, &ask).map_err(NotNow::Rejected)?;
        let pod = table.pods.get(&picked.endpoint).ok_or(NotNow::Rejected(Rejection::NoReplica))?;
        state.pods.entry(picked.endpoint.clone()).or_default().booked += job.pictures;
        let pod = pod.clone();
        Ok(Booking { desk: Arc::clone(self), pictures: job.pictures, pod, pick: picked })
    }

    pub(super) fn join(self: &Arc<Self>, model: &ModelId, place: Place) -> InLine {
        self.state().line.entry(model.clone()).or_default().insert(place);
        InLine { desk: Arc::clone(self), model: model.clone(), place }
    }

    pub(super) fn is_full(&self, pod: &ReplicaId, now: Instant) {
        let mut state = self.state();
        state.pods.entry(pod.clone()).or_default().full_until = Some(now + BUSY);
        state.pods.retain(|_, slot| slot.booked > 0 || slot.full_until.is_some_and(|until| until > now));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The endpoint as this gateway knows it: what it has sent is there, whether reported yet or not. Not the sum of both,
    /// which would count the reported part twice and leave half of the queue empty.
    fn seen(&self, endpoint: &Endpoint, model: &ModelId) -> Endpoint {
        let slot = self.pods.get(&endpoint.id);
        let full = slot.and_then(|slot| slot.full_until).is_some_and(|until| until > Instant::now());
        let booked = slot.map_or(0, |slot| slot.booked);
        Endpoint {
            id: endpoint.id.clone(),
            price: endpoint.price,
            ready: endpoint.ready.get_key_value(model).map(|(id, step)| (id.clone(), *step)).into_iter().collect(),
            coming: endpoint.coming.get(model).cloned().into_iter().collect(),
            queued: if full { endpoint.queue_limit } else { endpoint.queued.max(booked) },
            queue_limit: endpoint.queue_limit,
            draining: endpoint.draining,
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if let Some(slot) = state.pods.get_mut(&self.pick.endpoint) {
            slot.booked = slot.booked.saturating_sub(self.pictures);
            if slot.booked == 0 && slot.full_until.is_none() {
                state.pods.remove(&self.pick.endpoint);
            }
        }
        drop(state);
        self.desk.bell.notify_waiters();
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if let Some(line) = state.line.get_mut(&self.model) {
            line.remove(&self.place);
            if line.is_empty() {
                state.line.remove(&self.model);
            }
        }
        drop(state);
        self.desk.bell.notify_waiters();
    }
}
