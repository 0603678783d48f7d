//! The loader thread: loads, verifies and warms up one checkpoint at a time and hands whole pipelines over. Bytes are
//! hashed while they are loaded, and nothing computes with them before all of them have turned out to be right. What came
//! from a store was hashed by this process on its way, and is pinned in the cache since: it is not hashed again. What lay
//! in the cache before is; if it is spoilt it leaves, and is fetched anew.
//! Knows files and the Loader; does not know what else is resident, only the room that it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use easel_api::ImageSize;
use easel_api::engine::{DesiredModel, ModelState, RefusalReason, Source};
use easel_api::images::{ControlOptions, Strength, Task};
use easel_checkpoints::{Fetcher, Files, Held, Refusal, Stopped, Watch};
use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::fetching::Fetching;
use super::{Command, EngineMetrics};
use crate::pipeline::{Edit, LoadError, Loader, Mask, Picture, PictureRequest, Pipeline, PipelineError, Way};

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
    NoRoom {
        need_bytes: u64,
        room_bytes: u64,
    },
    /// The cache's copy was not what its digest names, and has left the cache.
    Spoilt,
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
        let files = self.files(order)?;
        fits(files.verified().weight_bytes, order.room_bytes)?;
        if files.are_proved() {
            self.say(order.ticket, News::Progress(ModelState::Loading));
        }
        let started = Instant::now();
        let pipeline = self.proved(order, &files)?;
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

    /// What the order's checkpoint is made of, read by name only so far.
    fn files<'a>(&'a self, order: &'a Order) -> Result<Files<'a>, Failure> {
        let model = &order.model;
        match (&order.held, &model.checkpoint.source) {
            (Some(held), _) => held.files(self.watch(order)).map_err(|refusal| self.not_those(order, refusal)),
            (None, Source::Folder { path }) => {
                self.fetcher.check_signature(&model.checkpoint)?;
                Ok(Files::unproved(path, &model.checkpoint.digest, self.watch(order))?)
            }
            (None, source @ (Source::Oci { .. } | Source::S3 { .. })) => {
                let message = format!("'{source}' was not fetched; this is a fault of the pod, see its log");
                Err(Refusal::new(RefusalReason::LoadFailed, message).into())
            }
        }
    }

    /// A pipeline of bytes that were all hashed, and are the digest's. Bytes that are not are what is wrong, whatever the
    /// loader made of them.
    fn proved(&self, order: &Order, files: &Files) -> Result<L::Pipeline, Failure> {
        let started = Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(|| self.loader.load(files)));
        wanted(order)?;
        let proved = if matches!(loaded, Ok(Ok(_))) { files.prove() } else { files.prove_unused() };
        if !files.are_proved() {
            self.metrics.verify_seconds.observe(started.elapsed().as_secs_f64());
        }
        proved.map_err(|stopped| match stopped {
            Stopped::Refused(refusal) => self.not_those(order, refusal),
            Stopped::Cancelled => Failure::Cancelled,
        })?;
        match loaded {
            Ok(loaded) => Ok(loaded.map_err(|error| refuse(&order.model, &error))?),
            Err(_) => Err(failed(&order.model, "the loader panicked; see the log").into()),
        }
    }

    /// Bytes that are not the digest's: of the cache, they leave it.
    fn not_those(&self, order: &Order, refusal: Refusal) -> Failure {
        let Some(held) = &order.held else { return Failure::Refused(refusal) };
        match self.fetcher.discard(held) {
            Ok(()) => Failure::Spoilt,
            Err(refusal) => Failure::Refused(refusal),
        }
    }

    /// Says how far the hashing is, and hears whether the checkpoint is still wanted.
    fn watch<'a>(&'a self, order: &'a Order) -> Watch<'a> {
        let said = Mutex::new((None::<Instant>, 0));
        Box::new(move |done_bytes, total_bytes| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let due = said.0.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) || done_bytes == total_bytes;
            // Several threads hash, and a later word may come first.
            if due && done_bytes >= said.1 {
                self.say(order.ticket, News::Progress(ModelState::Verifying { done_bytes, total_bytes }));
                *said = (Some(Instant::now()), done_bytes);
            }
            wanted(order).is_ok()
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
    let mut job = pipeline.encode(&default_picture(model, pipeline.tasks()))?;
    pipeline.denoise_step(&mut [&mut job])?;
    pipeline.decode(&job).map(|_| ())
}

/// The picture that a request without wishes gets.
pub(super) fn default_picture(model: &DesiredModel, tasks: &[Task]) -> PictureRequest {
    let size = model.defaults.size;
    PictureRequest {
        prompt: "a photo".into(),
        negative_prompt: String::new(),
        seed: 0,
        steps: model.defaults.steps.max(1),
        guidance_scale: model.defaults.guidance_scale,
        size,
        sampler: model.defaults.sampler,
        edit: tasks.first().and_then(|task| default_edit(*task, size)),
        adapters: Vec::new(),
    }
}

/// Of something grey.
fn default_edit(task: Task, size: ImageSize) -> Option<Edit> {
    let pixels = size.pixels() as usize;
    let way = match task {
        Task::Generate => return None,
        Task::Instruct => Way::Instruct { image_guidance_scale: 1.5 },
        Task::Control => Way::Control(ControlOptions::default()),
        Task::ImageToImage => Way::ImageToImage { strength: Strength::WHOLE },
        Task::Inpaint => {
            let mask = Arc::new(Mask { size, edited: vec![true; pixels] });
            Way::Inpaint { mask, strength: Strength::WHOLE }
        }
    };
    Some(Edit { picture: Arc::new(Picture { size, rgb: vec![128; 3 * pixels] }), way })
}
