//! The loader thread: verifies, loads and warms up one checkpoint at a time and hands whole pipelines over.
//! Knows files and the Loader; does not know what else is resident, only the room that it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use easel_api::engine::{DesiredModel, ModelState, RefusalReason};
use tokio::sync::mpsc::WeakSender;

use super::{Command, EngineMetrics};
use crate::checkpoint::{self, Refusal, Stopped};
use crate::pipeline::{LoadError, Loader, PictureRequest, Pipeline, PipelineError};

/// Between two words about a verification; a report goes out ten times a second at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What the loader shall do next.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) ticket: u64,
    pub(super) model: DesiredModel,
    /// Bytes that may be loaded; `None`: no limit.
    pub(super) room_bytes: Option<u64>,
    /// Turns false when the checkpoint is not wanted any more.
    pub(super) wanted: Arc<AtomicBool>,
}

pub(super) struct Event<P> {
    pub(super) ticket: u64,
    pub(super) news: News<P>,
}

pub(super) enum News<P> {
    Progress(ModelState),
    Done(Result<Ready<P>, Failure>),
}

pub(super) struct Ready<P> {
    pub(super) pipeline: P,
    pub(super) load: Duration,
}

#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    NoRoom { need_bytes: u64, room_bytes: u64 },
    Cancelled,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The engine's end of the channels to the loader thread.
pub(super) struct Loading<P> {
    pub(super) orders: SyncSender<Order>,
    pub(super) events: Receiver<Event<P>>,
}

pub(super) fn start<L: Loader>(
    loader: Arc<L>,
    bell: WeakSender<Command>,
    metrics: EngineMetrics,
) -> std::io::Result<Loading<L::Pipeline>> {
    let (orders, inbox) = sync_channel(1);
    let (outbox, events) = sync_channel(16);
    let worker = Worker { loader, outbox, bell, metrics };
    std::thread::Builder::new().name("loader".into()).spawn(move || worker.run(&inbox))?;
    Ok(Loading { orders, events })
}

struct Worker<L: Loader> {
    loader: Arc<L>,
    outbox: SyncSender<Event<L::Pipeline>>,
    bell: WeakSender<Command>,
    metrics: EngineMetrics,
}

impl<L: Loader> Worker<L> {
    fn run(&self, orders: &Receiver<Order>) {
        for order in orders {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.load(&order)));
            let result =
                attempt.unwrap_or_else(|_| Err(failed(&order.model, "the loader panicked; see the log").into()));
            if !self.say(order.ticket, News::Done(result)) {
                return;
            }
        }
    }

    /// False when the engine is gone.
    fn say(&self, ticket: u64, news: News<L::Pipeline>) -> bool {
        let sent = self.outbox.send(Event { ticket, news }).is_ok();
        if let Some(bell) = self.bell.upgrade() {
            let _ = bell.try_send(Command::LoaderSpoke); // full: the engine is awake, and looks here between steps
        }
        sent
    }

    fn load(&self, order: &Order) -> Result<Ready<L::Pipeline>, Failure> {
        let verified = self.verify(order)?;
        fits(verified.weight_bytes, order.room_bytes)?;
        self.say(order.ticket, News::Progress(ModelState::Loading));
        let started = Instant::now();
        let loaded = self.loader.load(Path::new(&order.model.checkpoint.path));
        let pipeline = loaded.map_err(|error| refuse(&order.model, &error))?;
        // What the device holds can differ from the files: f16 weights are widened on CPUs.
        fits(pipeline.memory_bytes(), order.room_bytes)?;
        wanted(order)?;
        self.say(order.ticket, News::Progress(ModelState::WarmingUp));
        warm_up(&pipeline, &order.model)
            .map_err(|error| failed(&order.model, &format!("the warm-up picture failed ({})", crate::chain(&error))))?;
        let load = started.elapsed();
        self.metrics.load_seconds.observe(load.as_secs_f64());
        Ok(Ready { pipeline, load })
    }

    fn verify(&self, order: &Order) -> Result<checkpoint::Verified, Failure> {
        let started = Instant::now();
        let mut said = None;
        let result = checkpoint::verify(&order.model.checkpoint, |done_bytes, total_bytes| {
            let due = said.is_none_or(|said: Instant| said.elapsed() >= PROGRESS_EVERY);
            if due || done_bytes == total_bytes {
                self.say(order.ticket, News::Progress(ModelState::Verifying { done_bytes, total_bytes }));
                said = Some(Instant::now());
            }
            wanted(order).is_ok()
        });
        self.metrics.verify_seconds.observe(started.elapsed().as_secs_f64());
        result.map_err(|stopped| match stopped {
            Stopped::Refused(refusal) => Failure::Refused(refusal),
            Stopped::Cancelled => Failure::Cancelled,
        })
    }
}

fn wanted(order: &Order) -> Result<(), Failure> {
    if order.wanted.load(Ordering::Relaxed) { Ok(()) } else { Err(Failure::Cancelled) }
}

fn fits(need_bytes: u64, room_bytes: Option<u64>) -> Result<(), Failure> {
    match room_bytes {
        Some(room_bytes) if need_bytes > room_bytes => Err(Failure::NoRoom { need_bytes, room_bytes }),
        Some(_) | None => Ok(()),
    }
}

fn refuse(model: &DesiredModel, error: &LoadError) -> Refusal {
    match error {
        LoadError::Unsupported(message) => Refusal::new(RefusalReason::Unsupported, message.clone()),
        LoadError::Failed { .. } => failed(model, &crate::chain(error)),
    }
}

fn failed(model: &DesiredModel, why: &str) -> Refusal {
    let path = &model.checkpoint.path;
    let message = format!(
        "the files in '{path}' are those of the digest, but loading them failed: {why}; try the checkpoint with \
         diffusers, or name another one"
    );
    Refusal::new(RefusalReason::LoadFailed, message)
}

/// One picture at the default size, so that the first client does not pay for lazy initialisation.
fn warm_up<P: Pipeline>(pipeline: &P, model: &DesiredModel) -> Result<(), PipelineError> {
    let mut job = pipeline.encode(&default_picture(model))?;
    pipeline.denoise_step(&mut [&mut job])?;
    pipeline.decode(&job).map(|_| ())
}

/// The picture that a request without wishes gets.
pub(super) fn default_picture(model: &DesiredModel) -> PictureRequest {
    PictureRequest {
        prompt: "a photo".into(),
        negative_prompt: String::new(),
        seed: 0,
        steps: model.defaults.steps.max(1),
        guidance_scale: model.defaults.guidance_scale,
        size: model.defaults.size,
        sampler: model.defaults.sampler,
    }
}
