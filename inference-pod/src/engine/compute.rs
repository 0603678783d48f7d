//! The engine thread: hears commands between steps, computes the scheduler's next batch, answers.
//! The only place where scheduler, residents and drawings meet; all three are owned here.

use std::time::{Duration, Instant};

use easel_api::engine::Report;
use tokio::sync::{mpsc, oneshot, watch};

use super::drawing::{Drawings, Told, pictures};
use super::load::{Loading, default_picture};
use super::metrics::{BatchLabel, ModelLabel};
use super::residency::Residents;
use super::step_times::StepTimes;
use super::{Command, DrawError, DrawRequest, Drawn, EngineFlags, EngineMetrics, Snapshot};
use crate::pipeline::{Pipeline, PipelineError};
use crate::scheduler::{JobId, NewRequest, RequestId, Scheduler, StepBatch};

pub(super) struct Engine<P: Pipeline> {
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<Snapshot>,
    loading: Loading<P>,
    metrics: EngineMetrics,
    scheduler: Scheduler,
    residents: Residents<P>,
    drawings: Drawings<P::Job>,
    next_request: u64,
    /// Of any size, for predictions.
    steps: StepTimes,
    closed: bool,
}

impl<P: Pipeline> Engine<P> {
    pub(super) fn new(
        flags: &EngineFlags,
        inbox: mpsc::Receiver<Command>,
        publish: watch::Sender<Snapshot>,
        loading: Loading<P>,
        metrics: EngineMetrics,
    ) -> Self {
        Self {
            inbox,
            publish,
            loading,
            metrics,
            scheduler: Scheduler::new(flags.limits()),
            residents: Residents::new(flags.memory_bytes),
            drawings: Drawings::new(),
            next_request: 0,
            steps: StepTimes::default(),
            closed: false,
        }
    }

    /// Until every handle is dropped.
    pub(super) fn run(mut self) {
        while !self.closed {
            self.hear();
            self.drop_lost();
            if let Some(batch) = self.scheduler.next_batch() {
                self.compute(&batch);
            }
            self.tidy();
            self.publish();
        }
    }

    /// Sleeps while there is nothing to compute; otherwise takes what is there.
    fn hear(&mut self) {
        if self.scheduler.is_idle() {
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
            self.residents.heard(event, Instant::now());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Draw(request, reply) => self.admit(&request, reply),
            Command::Hold(residency, reply) => {
                let result = self.residents.apply(residency);
                self.publish(); // before the answer: whoever has it sees a report that is as new
                let _ = reply.send(result.map(|()| self.report()));
            }
            Command::LoaderSpoke => {}
        }
    }

    fn admit(&mut self, request: &DrawRequest, reply: oneshot::Sender<Result<Drawn, DrawError>>) {
        let admitted = match self.place(request) {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let (id, jobs, told) = admitted;
        self.drawings.add(id, request, jobs, told, reply);
    }

    fn place(&mut self, request: &DrawRequest) -> Result<(RequestId, Vec<JobId>, Told), DrawError> {
        let pipeline = self.residents.serving(&request.model).ok_or(DrawError::NotResident)?;
        let loaded = self.residents.loaded(pipeline).ok_or(DrawError::NotResident)?;
        let picture = pictures(request).next().ok_or(DrawError::Failed)?;
        fits(loaded.pipeline.edits(), picture.edit.is_some())?;
        let key = loaded.pipeline.batch_key(&picture);
        let positions = u64::from(key.height) * u64::from(key.width);
        let tokens = |text: &str| if text.is_empty() { 0 } else { loaded.pipeline.text_tokens(text) };
        let told = Told {
            digest: loaded.checkpoint.digest.clone(),
            text_tokens: tokens(&picture.prompt) + tokens(&picture.negative_prompt),
            picture_tokens: if picture.edit.is_some() { positions } else { 0 },
            image_tokens: positions * u64::from(request.generation.n),
            warning: loaded.pipeline.vocabulary().and_then(|words| words.warning(&picture.prompt)),
        };
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let (jobs, steps) = (request.generation.n, picture.sampler.model_calls(picture.steps));
        let new = NewRequest { id, pipeline, key, jobs, steps, deadline: request.deadline };
        let jobs = self.scheduler.admit(&new, request.arrival).map_err(|full| DrawError::QueueFull {
            waiting: full.waiting as u32,
            predicted_wait: self.wait(full.calls_left),
        })?;
        Ok((id, jobs, told))
    }

    /// Requests whose caller left, and those whose deadline has passed.
    fn drop_lost(&mut self) {
        for id in self.drawings.abandoned() {
            tracing::info!(request = id.0, "caller left, request cancelled");
            self.fail(id, DrawError::Stopped);
        }
        for id in self.scheduler.late(Instant::now()) {
            self.fail(id, DrawError::Deadline);
        }
    }

    fn fail(&mut self, id: RequestId, error: DrawError) {
        self.scheduler.cancel(id);
        self.drawings.fail(id, error);
    }

    fn fail_job(&mut self, job: JobId, error: &PipelineError) {
        let Some(id) = self.drawings.request_of(job) else { return };
        tracing::error!(request = id.0, error = crate::chain(error), "request failed");
        let answer = match error {
            PipelineError::Unsupported(message) => DrawError::Unsupported(message.clone()),
            PipelineError::Failed { .. } | PipelineError::NotFinite => DrawError::Failed,
        };
        self.fail(id, answer);
    }

    fn compute(&mut self, batch: &StepBatch) {
        self.encode(batch);
        let jobs: Vec<_> = batch.jobs.iter().copied().filter(|job| self.drawings.request_of(*job).is_some()).collect();
        if jobs.is_empty() {
            return;
        }
        let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
        match self.drawings.step(&loaded.pipeline, &jobs) {
            Ok(duration) => {
                self.measure(batch, jobs.len(), duration);
                self.decode(batch, &jobs);
            }
            Err(error) => jobs.iter().for_each(|job| self.fail_job(*job, &error)),
        }
    }

    fn encode(&mut self, batch: &StepBatch) {
        for job in &batch.starting {
            let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
            if let Err(error) = self.drawings.encode(&loaded.pipeline, *job) {
                self.fail_job(*job, &error);
            }
        }
        if !batch.starting.is_empty() {
            self.publish(); // running has changed, and the step may be long
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
        self.steps.push(duration);
        let label = BatchLabel { batch: jobs as u64 };
        self.metrics.step_seconds.get_or_create(&label).observe(duration.as_secs_f64());
        let Some(loaded) = self.residents.loaded(batch.pipeline) else { return };
        let Some(desired) = self.residents.desired(&loaded.model) else { return };
        let at_default = loaded.pipeline.batch_key(&default_picture(desired, loaded.pipeline.edits())) == batch.key;
        if at_default && let Some(loaded) = self.residents.loaded_mut(batch.pipeline) {
            loaded.steps.push(duration);
        }
    }

    /// After a step: lets pipelines go that nobody needs, and gives the loader its next order.
    fn tidy(&mut self) {
        let Self { residents, scheduler, .. } = self;
        residents.retire(|pipeline| scheduler.uses(pipeline));
        let now = Instant::now();
        while let Some(order) = residents.next_fetch(now) {
            self.loading.fetching.start(order);
        }
        let order = residents.next_order(now);
        self.loading.alarm.set(residents.next_retry());
        if let Some(order) = order
            && self.loading.orders.try_send(order).is_err()
        {
            tracing::error!("the loader thread is gone");
            self.closed = true; // the probes port says so, and the pod is started again
        }
    }

    fn wait(&self, calls: u64) -> Duration {
        self.steps.mean().unwrap_or_default().mul_f64(calls as f64)
    }

    fn report(&self) -> Report {
        let previous = self.publish.borrow();
        Report {
            generation: self.residents.generation(),
            models: self.residents.reports(),
            waiting: self.scheduler.waiting() as u32,
            running: self.scheduler.running() as u32,
            queue_limit: previous.report.queue_limit,
            draining: false,
            device: previous.report.device.clone(),
            memory: self.residents.memory(),
        }
    }

    fn publish(&self) {
        let snapshot = Snapshot {
            report: self.report(),
            accepted: self.residents.is_accepted(),
            served: self.residents.served(),
            predicted_wait: self.wait(self.scheduler.calls_left()),
        };
        self.metrics.waiting.set(snapshot.report.waiting.into());
        self.metrics.running.set(snapshot.report.running.into());
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

/// A model either draws from nothing or changes a picture.
fn fits(edits: bool, is_edit: bool) -> Result<(), DrawError> {
    let message = match (edits, is_edit) {
        (true, false) => "this model changes pictures: send one with the prompt, to /v1/images/edits",
        (false, true) => "this model draws from nothing and can't edit: send the prompt to /v1/images/generations",
        (true, true) | (false, false) => return Ok(()),
    };
    Err(DrawError::Unsupported(message.into()))
}
