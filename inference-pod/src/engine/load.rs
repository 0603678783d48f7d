//! The loader thread: verifies, loads and warms up one checkpoint at a time and hands whole pipelines over. What came
//! from a store was hashed by this process on its way, and is pinned in the cache since: it is not hashed again.
//! Knows files and the Loader; does not know what else is resident, only the room that it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use easel_api::engine::{DesiredModel, ModelState, RefusalReason, Source};
use easel_checkpoints::verify::{self, Verified};
use easel_checkpoints::{Fetcher, Held, Refusal, Stopped};
use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::fetching::Fetching;
use super::{Command, EngineMetrics};
use crate::pipeline::{Edit, LoadError, Loader, Picture, PictureRequest, Pipeline, PipelineError};

/// Between two words about a verification; a report goes out ten times a second at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What the loader shall do next.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) ticket: u64,
    pub(super) model: DesiredModel,
    /// Bytes that may be loaded; `None`: no limit.
    pub(super) room_bytes: Option<u64>,
    /// The checkpoint in the cache; `None` for a folder, which nobody has proved yet.
    pub(super) held: Option<Held>,
    /// Cancelled when the checkpoint is not wanted any more.
    pub(super) unwanted: CancellationToken,
}

pub(super) struct Event<P> {
    pub(super) ticket: u64,
    pub(super) news: News<P>,
}

pub(super) enum News<P> {
    Progress(ModelState),
    /// It is in the cache, and can be loaded.
    Fetched(Result<Held, Refusal>),
    Done(Result<Ready<P>, Failure>),
}

pub(super) struct Ready<P> {
    pub(super) pipeline: P,
    pub(super) load: Duration,
    /// Stays in the cache for as long as the pipeline lives.
    pub(super) held: Option<Held>,
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

/// The engine's end of the channels to the loader thread and to fetches.
pub(super) struct Loading<P> {
    pub(super) orders: SyncSender<Order>,
    pub(super) events: Receiver<Event<P>>,
    pub(super) fetching: Fetching<P>,
    pub(super) alarm: Alarm,
}

/// Fetches run on the runtime that this is called in.
pub(super) fn start<L: Loader>(
    loader: Arc<L>,
    fetcher: Arc<Fetcher>,
    bell: WeakSender<Command>,
    metrics: EngineMetrics,
) -> std::io::Result<Loading<L::Pipeline>> {
    let (orders, inbox) = sync_channel(1);
    let (outbox, events) = sync_channel(16);
    let runtime = Handle::current();
    let alarm = Alarm::start(&runtime, bell.clone());
    let fetching = Fetching {
        runtime,
        fetcher: fetcher.clone(),
        outbox: outbox.clone(),
        bell: bell.clone(),
        metrics: metrics.clone(),
    };
    let worker = Worker { loader, fetcher, outbox, bell, metrics };
    std::thread::Builder::new().name("loader".into()).spawn(move || worker.run(&inbox))?;
    Ok(Loading { orders, events, fetching, alarm })
}

struct Worker<L: Loader> {
    loader: Arc<L>,
    fetcher: Arc<Fetcher>,
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
            let result = result.map(|(pipeline, load)| Ready { pipeline, load, held: order.held });
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

    fn load(&self, order: &Order) -> Result<(L::Pipeline, Duration), Failure> {
        let (folder, verified) = self.proved(order)?;
        fits(verified.weight_bytes, order.room_bytes)?;
        self.say(order.ticket, News::Progress(ModelState::Loading));
        let started = Instant::now();
        let loaded = self.loader.load(folder);
        let pipeline = loaded.map_err(|error| refuse(&order.model, &error))?;
        // What the device holds can differ from the files: f16 weights are widened on CPUs.
        fits(pipeline.memory_bytes(), order.room_bytes)?;
        wanted(order)?;
        self.say(order.ticket, News::Progress(ModelState::WarmingUp));
        warm_up(&pipeline, &order.model)
            .map_err(|error| failed(&order.model, &format!("the warm-up picture failed ({})", crate::chain(&error))))?;
        let load = started.elapsed();
        self.metrics.load_seconds.observe(load.as_secs_f64());
        Ok((pipeline, load))
    }

    /// The folder that holds the checkpoint, and what is in it.
    fn proved<'a>(&self, order: &'a Order) -> Result<(&'a Path, Verified), Failure> {
        match (&order.held, &order.model.checkpoint.source) {
            (Some(held), _) => Ok((&held.folder, held.verified)),
            (None, Source::Folder { path }) => {
                self.fetcher.check_signature(&order.model.checkpoint)?;
                Ok((Path::new(path), self.verify(order, path)?))
            }
            (None, source @ (Source::Oci { .. } | Source::S3 { .. })) => {
                let message = format!("'{source}' was not fetched; this is a fault of the pod, see its log");
                Err(Refusal::new(RefusalReason::LoadFailed, message).into())
            }
        }
    }

    fn verify(&self, order: &Order, path: &str) -> Result<Verified, Failure> {
        let started = Instant::now();
        let mut said = None;
        let result = verify::folder(path, &order.model.checkpoint.digest, |done_bytes, total_bytes| {
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
    if order.unwanted.is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
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
    let source = &model.checkpoint.source;
    let message = format!(
        "the files of '{source}' are those of the digest, but loading them failed: {why}; try the checkpoint with \
         diffusers, or name another one"
    );
    Refusal::new(RefusalReason::LoadFailed, message)
}

/// One picture at the default size, so that the first client does not pay for lazy initialisation.
fn warm_up<P: Pipeline>(pipeline: &P, model: &DesiredModel) -> Result<(), PipelineError> {
    let mut job = pipeline.encode(&default_picture(model, pipeline.edits()))?;
    pipeline.denoise_step(&mut [&mut job])?;
    pipeline.decode(&job).map(|_| ())
}

/// The picture that a request without wishes gets.
pub(super) fn default_picture(model: &DesiredModel, edits: bool) -> PictureRequest {
    let size = model.defaults.size;
    let grey = || Picture { size, rgb: vec![128; 3 * size.pixels() as usize] };
    PictureRequest {
        prompt: "a photo".into(),
        negative_prompt: String::new(),
        seed: 0,
        steps: model.defaults.steps.max(1),
        guidance_scale: model.defaults.guidance_scale,
        size,
        sampler: model.defaults.sampler,
        edit: edits.then(|| Edit { picture: Arc::new(grey()), image_guidance_scale: 1.5 }),
    }
}
