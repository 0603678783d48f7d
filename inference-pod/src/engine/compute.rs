//! The engine thread: hears commands between steps, computes the scheduler's next batch, answers.
//! The only place where scheduler, residents and drawings meet; all three are owned here.

mod adapters;
mod admission;

use std::time::{Duration, Instant};

use easel_api::engine::{ModelReport, Report};
use tokio::sync::{mpsc, watch};

use super::adapters::Adapters;
use super::allocator;
use super::awaiting::Awaiting;
use super::drawing::{Drawings, Encoded, Resumed};
use super::load::{Loading, default_picture};
use super::metrics::ModelLabel;
use super::residency::{Demand, Moved, Residents};
use super::{Command, DrawError, EngineFlags, EngineMetrics, Snapshot};
use crate::pipeline::{BatchKey, Pipeline, PipelineError};
use crate::scheduler::{JobId, RequestId, Scheduler, Shape, StepBatch, StepTimes, duration};

/// A request that needs no more steps is drawn to its end before its pod goes: moving costs as much.
const STEPS_TO_FINISH: u32 = 2;

pub(super) struct Engine<P: Pipeline> {
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Snapshot>,
    loading: Loading<P>,
    adapters: Adapters<P>,
    metrics: EngineMetrics,
    scheduler: Scheduler,
    residents: Residents<P>,
    /// For a model that is not on the device.
    awaiting: Awaiting,
    drawings: Drawings<P::Job>,
    next_request: u64,
    /// For predictions.
    times: StepTimes,
    max_batch: usize,
    max_waiting: usize,
    /// Working memory counts beside weights.
    counts_activations: bool,
    /// Something waits that can't be stepped now.
    stuck: bool,
    closed: bool,
}

impl<P: Pipeline> Engine<P> {
    pub(super) fn new(
        flags: &EngineFlags,
        host_bytes: u64,
        inbox: mpsc::Receiver<Command>,
        publish: watch::Sender<Snapshot>,
        loading: Loading<P>,
        adapters: Adapters<P>,
        metrics: EngineMetrics,
    ) -> Self {
        Self {
            inbox,
            publish,
            loading,
            adapters,
            metrics,
            scheduler: Scheduler::new(flags.limits(), flags.profile()),
            residents: Residents::new(flags.memory_bytes, host_bytes),
            awaiting: Awaiting::new(flags.patience()),
            drawings: Drawings::new(),
            next_request: 0,
            times: StepTimes::default(),
            max_batch: flags.max_batch as usize,
            max_waiting: flags.queue_limit as usize,
            counts_activations: flags.activation_kib > 0,
            stuck: false,
            closed: false,
        }
    }

    /// Until every handle is dropped.
    pub(super) fn run(mut self) {
        while !self.closed {
            self.hear();
            self.unpark();
            self.drop_lost();
            let batch = self.scheduler.next_batch(Instant::now());
            self.stuck = batch.is_none();
            if let Some(batch) = batch {
                self.compute(&batch);
            }
            self.tidy();
            self.publish();
        }
    }

    /// Sleeps while there is nothing to compute; otherwise takes what is there.
    fn hear(&mut self) {
        // An adapter that waited for the last drawing to end finds its place now; nobody would wake us for it.
        let settles = self.scheduler.is_idle() && self.adapters.awaits_room();
        if !settles && (self.stuck || self.scheduler.is_idle()) {
            match self.inbox.blocking_recv() {
                Some(command) => self.obey(command),
                None => self.closed = true,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
        while let Ok(event) = self.loading.events.try_recv() {
            if let Some(Moved { from, to, took }) = self.residents.heard(event, Instant::now()) {
                self.metrics.moved(from, to, took);
            }
        }
        self.admit_awaited();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Draw(request, reply) => self.admit(request, reply),
            Command::Hold(residency, reply) => {
                let models = residency.models.clone();
                let result = self.residents.apply(residency);
                if result.is_ok() {
                    self.adapters.apply(&models);
                }
                self.publish(); // before the answer: whoever has it sees a report that is as new
                let _ = reply.send(result.map(|()| self.report()));
            }
            Command::Cancel(name, reply) => {
                let named = self.drawings.named(&name);
                for id in &named {
                    tracing::info!(request = id.0, name = &*name, "request cancelled");
                    self.fail(*id, DrawError::Cancelled);
                }
                let waiting = self.cancel_parked(&name) + self.awaiting.cancel(&name);
                self.publish(); // as above
                let _ = reply.send(named.len() + waiting);
            }
            Command::HandOver => {
                self.hand_over();
                self.publish();
            }
            Command::LoaderSpoke => {}
        }
    }

    /// Requests whose caller left, those whose deadline has passed, and those that weights have left no room.
    fn drop_lost(&mut self) {
        for id in self.drawings.abandoned() {
            tracing::info!(request = id.0, "caller left, request cancelled");
            self.fail(id, DrawError::Stopped);
        }
        self.awaiting.drop_lost(Instant::now());
        for id in self.scheduler.late(Instant::now()) {
            self.fail(id, DrawError::Deadline);
        }
        self.measure_room();
        for id in self.scheduler.misfits() {
            let message = "models that were loaded meanwhile have left no room for this picture; send it again";
            self.fail(id, DrawError::TooLarge(message.into()));
        }
    }

    fn measure_room(&mut self) {
        let free = self.residents.free().filter(|_| self.counts_activations);
        self.scheduler.set_free(free);
    }

    fn fail(&mut self, id: RequestId, error: DrawError) {
        let cancelled = self.scheduler.cancel(id);
        self.metrics.cancelled_steps.inc_by(cancelled.steps);
        self.drawings.fail(id, error);
    }

    /// Of each request that can go on elsewhere.
    fn hand_over(&mut self) {
        self.metrics.handed_over.inc_by(self.awaiting.leave() as u64);
        for id in self.drawings.leave() {
            let Some(pipeline) = self.drawings.pipeline(id) else { continue };
            if self.scheduler.steps_left(id) <= STEPS_TO_FINISH && self.drawings.has_begun(id) {
                continue;
            }
            if let Some(loaded) = self.residents.loaded(pipeline) {
                self.drawings.export(&loaded.pipeline, id, &self.metrics);
            }
            self.scheduler.cancel(id);
            self.metrics.handed_over.inc();
            self.drawings.fail(id, DrawError::Moved);
        }
    }

    fn fail_job(&mut self, job: JobId, error: &PipelineError) {
        let Some(id) = self.drawings.request_of(job) else { return };
        tracing::error!(request = id.0, error = crate::chain(error), "request failed");
        let answer = match error {
            PipelineError::Unsupported(message) => DrawError::Unsupported(message.clone()),
            PipelineError::Failed { .. } | PipelineError::Snapshot(_) | PipelineError::NotFinite => DrawError::Failed,
        };
        self.fail(id, answer);
    }

    fn compute(&mut self, batch: &StepBatch) {
        let (pipeline, jobs) = (batch.pipeline.0, batch.jobs.len());
        let BatchKey { height, width, rows, .. } = batch.key;
        let _step = tracing::debug_span!("step", pipeline, height, width, rows, jobs).entered();
        self.encode(batch);
        let jobs: Vec<_> = batch.jobs.iter().copied().filter(|job| self.drawings.request_of(*job).is_some()).collect();
        if jobs.is_empty() {
            return;
        }
        let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
        match self.drawings.step(&loaded.pipeline, &jobs) {
            Ok(duration) => {
                self.measure(batch, jobs.len(), duration);
                self.preview(batch, &jobs);
                self.snapshot(batch, &jobs);
                self.decode(batch, &jobs);
            }
            Err(error) => jobs.iter().for_each(|job| self.fail_job(*job, &error)),
        }
    }

    fn encode(&mut self, batch: &StepBatch) {
        for job in &batch.starting {
            let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
            match self.drawings.encode(&loaded.pipeline, *job) {
                Ok(encoded) => self.encoded(*job, &encoded),
                Err(error) => self.fail_job(*job, &error),
            }
        }
        if !batch.starting.is_empty() {
            self.publish(); // running has changed, and the step may be long
        }
    }

    fn encoded(&mut self, job: JobId, Encoded { queued, resumed }: &Encoded) {
        if let Some(queued) = queued {
            self.metrics.queue_seconds.observe(queued.as_secs_f64());
        }
        match resumed {
            Resumed::New => {}
            Resumed::After(steps) => {
                self.metrics.resumed.inc();
                self.metrics.resumed_steps.inc_by((*steps).into());
            }
            Resumed::Anew(steps) => {
                self.metrics.snapshots_refused.inc();
                self.scheduler.begins_anew(job, *steps);
            }
        }
    }

    fn snapshot(&mut self, batch: &StepBatch, jobs: &[JobId]) {
        if let Some(loaded) = self.residents.loaded(batch.pipeline) {
            self.drawings.snapshot(&loaded.pipeline, jobs, &self.metrics);
        }
    }

    fn preview(&mut self, batch: &StepBatch, jobs: &[JobId]) {
        if let Some(loaded) = self.residents.loaded(batch.pipeline) {
            self.drawings.preview(&loaded.pipeline, jobs);
        }
    }

    fn decode(&mut self, batch: &StepBatch, jobs: &[JobId]) {
        for job in self.scheduler.stepped(jobs) {
            let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
            if let Err(error) = self.drawings.finish(&loaded.pipeline, job) {
                self.fail_job(job, &error);
            }
        }
    }

    fn measure(&mut self, batch: &StepBatch, jobs: usize, duration: Duration) {
        let shape = Shape { pipeline: batch.pipeline, key: batch.key, jobs };
        self.times.push(shape, duration);
        self.metrics.stepped(batch.key, jobs, self.max_batch, duration);
        let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
        if let Some(peak) = loaded.pipeline.peak_bytes() {
            self.scheduler.memory_mut().observe(batch.pipeline, batch.key, jobs, peak);
        }
        let default_key = self
            .residents
            .desired(&loaded.about.model)
            .map(|desired| loaded.pipeline.batch_key(&default_picture(desired, loaded.pipeline.tasks())));
        self.residents.used(batch.pipeline, (default_key == Some(batch.key)).then_some(duration));
    }

    /// After a step: lets pipelines go that nobody needs, and gives the loader its next order.
    fn tidy(&mut self) {
        let reserved = self.reserved_bytes();
        let Self { residents, scheduler, .. } = self;
        if residents.retire(|pipeline| scheduler.uses(pipeline)) {
            self.times.forget(|pipeline| !residents.is_known(pipeline));
            scheduler.memory_mut().forget(|pipeline| !residents.is_known(pipeline));
            allocator::give_back();
        }
        let now = Instant::now();
        self.tidy_adapters(now);
        let Self { residents, scheduler, .. } = self;
        while let Some(order) = residents.next_fetch(now) {
            self.loading.fetching.start(order);
        }
        let busy = |pipeline| scheduler.uses(pipeline);
        let order = residents.next_order(now, &Demand { dues: self.awaiting.dues(), reserved, busy });
        self.stuck &= self.admit_awaited() == 0; // what was closed may be open now
        // While something can be stepped, every step looks at the deadlines.
        let deadline = self.scheduler.next_deadline().filter(|_| self.stuck);
        let deadlines = [deadline, self.adapters.next_deadline(), self.awaiting.next_deadline()];
        let retries = [self.residents.next_retry(), self.adapters.next_retry()];
        self.loading.alarm.set(deadlines.into_iter().chain(retries).flatten().min());
        if let Some(order) = order
            && self.loading.orders.try_send(order).is_err()
        {
            tracing::error!("the loader thread is gone");
            self.closed = true; // the probes port says so, and the pod is started again
        }
    }

    fn reserved_bytes(&self) -> u64 {
        if self.counts_activations { self.scheduler.reserved_bytes() } else { 0 }
    }

    fn predicted_wait(&self) -> Duration {
        let awaited = self.awaiting.models().into_iter();
        let awaited = awaited.map(|model| self.residents.awaited_time(&model, self.awaiting.of(&model).1));
        duration(&self.scheduler.work_left(), &self.times) + awaited.sum::<Duration>()
    }

    fn waiting(&self) -> usize {
        self.scheduler.waiting() + self.adapters.waiting() + self.awaiting.pictures() as usize
    }

    fn report(&self) -> Report {
        let previous = self.publish.borrow();
        Report {
            generation: self.residents.generation(),
            models: self.model_reports(),
            waiting: self.waiting() as u32,
            running: self.scheduler.running() as u32,
            left_ms: self.predicted_wait().as_millis() as u64,
            running_left_ms: duration(&self.scheduler.work_running(), &self.times).as_millis() as u64,
            queue_limit: previous.report.queue_limit,
            draining: false,
            device: previous.report.device.clone(),
            memory: self.residents.memory(self.reserved_bytes()),
        }
    }

    fn model_reports(&self) -> Vec<ModelReport> {
        let mut reports = self.residents.reports(&self.times, &self.awaiting);
        for report in &mut reports {
            report.adapters = self.adapters.reports(&report.id, self.residents.serving(&report.id));
        }
        reports
    }

    fn publish(&self) {
        let snapshot = Snapshot {
            report: self.report(),
            accepted: self.residents.is_accepted(),
            served: self.residents.served(),
            calls_left: self.scheduler.calls_left(),
            predicted_wait: self.predicted_wait(),
        };
        self.metrics.waiting.set(snapshot.report.waiting.into());
        self.metrics.running.set(snapshot.report.running.into());
        self.metrics.holds(self.residents.bytes());
        self.publish.send_if_modified(|held| {
            if held.report.models != snapshot.report.models || held.served != snapshot.served {
                self.count_ready(&snapshot);
            }
            let modified = *held != snapshot;
            *held = snapshot;
            modified
        });
    }

    fn count_ready(&self, snapshot: &Snapshot) {
        self.metrics.model_ready.clear(); // models that left must not stay
        for model in &snapshot.report.models {
            let ready = snapshot.served.contains_key(&model.id);
            let label = ModelLabel { model: model.id.to_string() };
            self.metrics.model_ready.get_or_create(&label).set(ready.into());
        }
    }
}
