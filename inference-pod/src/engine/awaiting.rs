//! The requests whose model is not on the device: who waits for which, and until when. The engine admits them as soon as
//! their model computes. Knows requests; does not know pipelines or what is moved for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use easel_api::engine::ModelId;
use tokio::sync::oneshot;

use super::{DrawError, DrawRequest, Drawn};

pub(super) type Reply = oneshot::Sender<Result<Drawn, DrawError>>;

struct Wait {
    request: Box<DrawRequest>,
    reply: Reply,
    due: Instant,
}

pub(super) struct Awaiting {
    patience: Duration,
    /// In the order of arrival.
    waits: Vec<Wait>,
}

impl Awaiting {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waits: Vec::new() }
    }

    /// The deadline, at most `patience` after arrival.
    pub(super) fn due_of(&self, request: &DrawRequest) -> Instant {
        let patient = request.arrival + self.patience;
        request.deadline.map_or(patient, |deadline| deadline.clamp(request.arrival, patient))
    }

    pub(super) fn push(&mut self, request: Box<DrawRequest>, reply: Reply) {
        let due = self.due_of(&request);
        self.waits.push(Wait { request, reply, due });
    }

    pub(super) fn pictures(&self) -> u32 {
        self.waits.iter().map(|wait| wait.request.generation.n).sum()
    }

    /// Of a model: pictures, and the model calls that they take one by one.
    pub(super) fn of(&self, model: &ModelId) -> (u32, u64) {
        let of_it = self.waits.iter().filter(|wait| wait.request.model == *model);
        of_it.fold((0, 0), |(pictures, calls), wait| {
            let generation = &wait.request.generation;
            let each = u64::from(generation.sampler.model_calls(generation.steps));
            (pictures + generation.n, calls + each * u64::from(generation.n))
        })
    }

    pub(super) fn models(&self) -> BTreeSet<ModelId> {
        self.waits.iter().map(|wait| wait.request.model.clone()).collect()
    }

    /// The earliest of each model.
    pub(super) fn dues(&self) -> BTreeMap<ModelId, Instant> {
        let mut dues = BTreeMap::new();
        for Wait { request, reply: _, due } in &self.waits {
            let earliest = dues.entry(request.model.clone()).or_insert(*due);
            *earliest = (*earliest).min(*due);
        }
        dues
    }

    /// Takes out a model's requests that are due in time.
    pub(super) fn take(
        &mut self,
        model: &ModelId,
        in_time: impl Fn(Instant) -> bool,
    ) -> Vec<(Box<DrawRequest>, Reply)> {
        let taken = self.waits.extract_if(.., |wait| wait.request.model == *model && in_time(wait.due));
        taken.map(|wait| (wait.request, wait.reply)).collect()
    }

    /// Forgets those whose caller left, and tells those whose deadline has passed.
    pub(super) fn drop_lost(&mut self, now: Instant) {
        self.waits.retain(|wait| !wait.reply.is_closed());
        self.fail(|request| request.deadline.is_some_and(|deadline| deadline <= now), &DrawError::Deadline);
    }

    /// By `x-request-id`; gives their number.
    pub(super) fn cancel(&mut self, name: &str) -> usize {
        self.fail(|request| request.sender.id.as_deref() == Some(name), &DrawError::Cancelled)
    }

    /// Those that can go on elsewhere; gives their number.
    pub(super) fn leave(&mut self) -> usize {
        self.fail(|request| request.snapshots.is_some(), &DrawError::Moved)
    }

    fn fail(&mut self, of: impl Fn(&DrawRequest) -> bool, error: &DrawError) -> usize {
        let mut failed = 0;
        for Wait { request: _, reply, due: _ } in self.waits.extract_if(.., |wait| of(&wait.request)) {
            let _ = reply.send(Err(error.clone())); // a caller that left wants no answer
            failed += 1;
        }
        failed
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waits.iter().filter_map(|wait| wait.request.deadline).min()
    }
}
