//! Requests that name adapters: parked until what they wear is in memory, and then admitted as any other.
//! Moves adapters between the thread that reads them and pipelines; which, is decided in `engine::adapters`.

use std::sync::Arc;
use std::time::Instant;

use super::Engine;
use crate::engine::adapters::{Parked, Placed};
use crate::engine::awaiting::Reply;
use crate::engine::{DrawError, DrawRequest};
use crate::pipeline::{Pipeline, WornAdapter};
use crate::scheduler::PipelineId;

impl<P: Pipeline> Engine<P> {
    /// A request whose model is on the device.
    pub(super) fn dress(&mut self, request: Box<DrawRequest>, reply: Reply) {
        self.measure_room();
        match self.wears(&request) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(worn) => match worn.filter(|worn| worn.is_empty() || !self.adapters.awaits_room()) {
                Some(worn) => self.place(&request, &worn, reply),
                None if self.has_place(&request) => self.adapters.park(Parked { request, reply }),
                None => drop(reply.send(Err(self.queue_full()))),
            },
        }
    }

    /// What it wears, or `None` while something of that is not in memory.
    fn wears(&self, request: &DrawRequest) -> Result<Option<Vec<WornAdapter>>, DrawError> {
        if request.generation.adapters.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let pipeline = self.residents.serving(&request.model).ok_or(DrawError::NotResident)?;
        self.adapters.worn(pipeline, request)
    }

    /// In the queue, as the scheduler counts it, whatever it waits for.
    pub(super) fn has_place(&self, request: &DrawRequest) -> bool {
        let waiting = self.waiting();
        waiting == 0 || waiting + request.generation.n as usize <= self.max_waiting
    }

    pub(super) fn queue_full(&self) -> DrawError {
        let waiting = self.waiting() as u32;
        let (calls_left, predicted_wait) = (self.scheduler.calls_left(), self.predicted_wait());
        DrawError::QueueFull { waiting, calls_left, predicted_wait }
    }

    /// Before a step: takes what was read, and admits whoever has all that it wears.
    pub(super) fn unpark(&mut self) {
        let now = Instant::now();
        self.adapters.hear(now);
        let in_use = self.drawings.worn();
        let residents = &self.residents;
        if let Some(Placed { pipeline, digest, adapter, leaving }) =
            self.adapters.settle(&in_use, |model| residents.serving(model))
        {
            self.put_down(leaving);
            if let Some(loaded) = self.residents.loaded_mut(pipeline) {
                loaded.pipeline.hold_adapter(&digest, adapter);
            }
        }
        for parked in self.adapters.take_parked() {
            let Parked { request, reply } = parked;
            if reply.is_closed() {
                tracing::info!("caller left before an adapter was read, request cancelled");
            } else if request.deadline.is_some_and(|deadline| deadline <= now) {
                let _ = reply.send(Err(DrawError::Deadline));
            } else if self.residents.serving(&request.model).is_none() {
                self.admit(request, reply); // its model has left the device meanwhile
            } else {
                match self.wears(&request) {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok(Some(worn)) if !self.adapters.awaits_room() => self.place(&request, &worn, reply),
                    Ok(_) => self.adapters.park(Parked { request, reply }),
                }
            }
        }
    }

    /// Those parked by this `x-request-id`; gives their number.
    pub(super) fn cancel_parked(&mut self, name: &Arc<str>) -> usize {
        let mut cancelled = 0;
        for Parked { request, reply } in self.adapters.take_parked() {
            if request.sender.id.as_ref() == Some(name) {
                cancelled += 1;
                let _ = reply.send(Err(DrawError::Cancelled));
            } else {
                self.adapters.park(Parked { request, reply });
            }
        }
        cancelled
    }

    /// After a step: lets adapters go that nobody shall have, all that nobody draws with if a checkpoint needs their room,
    /// and has the next one read.
    pub(super) fn tidy_adapters(&mut self, now: Instant) {
        let in_use = self.drawings.worn();
        let (residents, for_room) = (&self.residents, self.residents.wants_room(now));
        let model_of = |pipeline: PipelineId| residents.loaded(pipeline).map(|loaded| loaded.about.model.clone());
        let leaving = self.adapters.leaving(&in_use, model_of, for_room);
        self.put_down(leaving);
        let residents = &self.residents;
        let layers = |pipeline: PipelineId| residents.loaded(pipeline).map(|loaded| loaded.pipeline.layers());
        self.adapters.next_order(now, |model| residents.serving(model), layers);
        self.residents.set_beside(self.adapters.used_bytes());
    }

    fn put_down(&mut self, leaving: Vec<(PipelineId, String)>) {
        for (pipeline, digest) in leaving {
            if let Some(loaded) = self.residents.loaded_mut(pipeline) {
                loaded.pipeline.drop_adapter(&digest);
            }
        }
    }
}
