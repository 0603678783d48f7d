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
use super::{Command, EngineMetrics, allocator, priority};
use crate::pipeline::{Edit, LoadError, Loader, Mask, Picture, PictureRequest, Pipeline, PipelineError, Way};

/// Between two words about a verification; a report goes out ten times a second at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What the loader shall do next.
pub(super) struct Order<P: Pipeline> {
    pub(super) ticket: u64,
    pub(super) model: DesiredModel,
    pub(super) errand: Errand<P>,
    /// Bytes that may be loaded; `None`: no limit.
    pub(super) room_bytes: Option<u64>,
    /// The checkpoint in the cache; `None` for a folder, which nobody has proved yet.
    pub(super) held: Option<Arc<Held>>,
    /// Cancelled when the checkpoint is not wanted any more.
    pub(super) unwanted: CancellationToken,
}

/// Who has the checkpoint meanwhile is the loader thread, so that nobody computes with what moves.
pub(super) enum Errand<P: Pipeline> {
    /// That the files are those of the digest.
    Prove,
    Load,
    LoadToHost,
    Wake {
        parked: P::Parked,
        is_new: bool,
    },
    Park(P),
    /// To the disk, where it is.
    Forget(P),
    ForgetParked(P::Parked),
}

pub(super) struct Event<P: Pipeline> {
    pub(super) ticket: u64,
    pub(super) news: News<P>,
}

pub(super) enum News<P: Pipeline> {
    Progress(ModelState),
    /// It is in the cache, and can be loaded.
    Fetched(Result<Held, Refusal>),
    Done(Result<Ready<P>, Failure>),
}

/// Where a checkpoint is now.
pub(super) enum Landed<P: Pipeline> {
    Device(P),
    Host(P::Parked),
    Disk,
}

pub(super) struct Ready<P: Pipeline> {
    pub(super) landed: Landed<P>,
    pub(super) took: Duration,
    /// Of all its files, when they were looked at.
    pub(super) disk_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    NoRoom {
        need_bytes: u64,
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
pub(super) struct Loading<P: Pipeline> {
    pub(super) orders: SyncSender<Order<P>>,
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
    fn run(&self, orders: &Receiver<Order<L::Pipeline>>) {
        priority::go_behind();
        for Order { ticket, model, errand, room_bytes, held, unwanted } in orders {
            let ask = Ask { ticket, model, room_bytes, held, unwanted };
            let attempt = catch_unwind(AssertUnwindSafe(|| self.obey(&ask, errand)));
            let result = attempt.unwrap_or_else(|_| Err(failed(&ask.model, "the loader panicked; see the log").into()));
            if !self.say(ticket, News::Done(result)) {
                return;
            }
        }
    }

    fn obey(&self, ask: &Ask, errand: Errand<L::Pipeline>) -> Result<Ready<L::Pipeline>, Failure> {
        let started = Instant::now();
        let (landed, disk_bytes) = match errand {
            Errand::Load => {
                let (pipeline, bytes) = self.load(ask)?;
                (Landed::Device(pipeline), Some(bytes))
            }
            Errand::LoadToHost => {
                let (parked, bytes) = self.load_to_host(ask)?;
                (Landed::Host(parked), Some(bytes))
            }
            Errand::Prove => (Landed::Disk, Some(self.prove(ask)?)),
            Errand::Wake { parked, is_new } => (self.wake(ask, parked, is_new)?, None),
            Errand::Park(pipeline) => (park(ask, pipeline), None),
            Errand::Forget(pipeline) => {
                allocator::free(pipeline);
                (Landed::Disk, None)
            }
            Errand::ForgetParked(parked) => {
                allocator::free(parked);
                (Landed::Disk, None)
            }
        };
        Ok(Ready { landed, took: started.elapsed(), disk_bytes })
    }

    /// False when the engine is gone.
    fn say(&self, ticket: u64, news: News<L::Pipeline>) -> bool {
        let sent = self.outbox.send(Event { ticket, news }).is_ok();
        if let Some(bell) = self.bell.upgrade() {
            let _ = bell.try_send(Command::LoaderSpoke); // full: the engine is awake, and looks here between steps
        }
        sent
    }

    /// Gives the bytes of the files too.
    fn load(&self, ask: &Ask) -> Result<(L::Pipeline, u64), Failure> {
        let files = self.files(ask)?;
        fits(files.verified().weight_bytes, ask.room_bytes)?;
        if files.are_proved() {
            self.say(ask.ticket, News::Progress(ModelState::Loading));
        }
        let pipeline = self.proved(ask, &files, |files| self.loader.load(files))?;
        // What the device holds can differ from the files: f16 weights are widened on CPUs.
        fits(pipeline.memory_bytes(), ask.room_bytes)?;
        wanted(ask)?;
        self.warm_up(ask, &pipeline)?;
        Ok((pipeline, files.verified().total_bytes))
    }

    fn load_to_host(&self, ask: &Ask) -> Result<(<L::Pipeline as Pipeline>::Parked, u64), Failure> {
        let files = self.files(ask)?;
        fits(files.verified().weight_bytes, ask.room_bytes)?;
        if files.are_proved() {
            self.say(ask.ticket, News::Progress(ModelState::Loading));
        }
        let parked = self.proved(ask, &files, |files| self.loader.load_parked(files))?;
        fits(L::Pipeline::parked_bytes(&parked), ask.room_bytes)?;
        wanted(ask)?;
        Ok((parked, files.verified().total_bytes))
    }

    /// Gives the bytes of the files.
    fn prove(&self, ask: &Ask) -> Result<u64, Failure> {
        let files = self.files(ask)?;
        self.proved(ask, &files, |_| Ok(()))?;
        Ok(files.verified().total_bytes)
    }

    /// What fails is read from the disk again, and refused there if that is no better.
    fn wake(
        &self,
        ask: &Ask,
        parked: <L::Pipeline as Pipeline>::Parked,
        is_new: bool,
    ) -> Result<Landed<L::Pipeline>, Failure> {
        match L::Pipeline::wake(parked) {
            Ok(pipeline) => {
                if is_new {
                    self.warm_up(ask, &pipeline)?;
                }
                Ok(Landed::Device(pipeline))
            }
            Err(error) => {
                tracing::error!(model = %ask.model.id, error = crate::chain(&error), "failed to bring it to the device");
                Ok(Landed::Disk)
            }
        }
    }

    fn warm_up(&self, ask: &Ask, pipeline: &L::Pipeline) -> Result<(), Failure> {
        self.say(ask.ticket, News::Progress(ModelState::WarmingUp));
        let warmed = warm_up(pipeline, &ask.model);
        let why = |error| failed(&ask.model, &format!("the warm-up picture failed ({})", crate::chain(&error)));
        warmed.map_err(|error| why(error).into())
    }

    /// What the checkpoint is made of, read by name only so far.
    fn files<'a>(&'a self, ask: &'a Ask) -> Result<Files<'a>, Failure> {
        let model = &ask.model;
        match (&ask.held, &model.checkpoint.source) {
            (Some(held), _) => held.files(self.watch(ask)).map_err(|refusal| self.not_those(ask, refusal)),
            (None, Source::Folder { path }) => {
                self.fetcher.check_signature(&model.checkpoint)?;
                Ok(Files::unproved(path, &model.checkpoint.digest, self.watch(ask))?)
            }
            (None, source @ (Source::Oci { .. } | Source::S3 { .. })) => {
                let message = format!("'{source}' was not fetched; this is a fault of the pod, see its log");
                Err(Refusal::new(RefusalReason::LoadFailed, message).into())
            }
        }
    }

    /// What is made of bytes that were all hashed, and are the digest's. Bytes that are not are what is wrong, whatever the
    /// loader made of them.
    fn proved<T>(
        &self,
        ask: &Ask,
        files: &Files,
        load: impl FnOnce(&Files) -> Result<T, LoadError>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(|| load(files)));
        wanted(ask)?;
        let proved = if matches!(loaded, Ok(Ok(_))) { files.prove() } else { files.prove_unused() };
        if !files.are_proved() {
            self.metrics.verify_seconds.observe(started.elapsed().as_secs_f64());
        }
        proved.map_err(|stopped| match stopped {
            Stopped::Refused(refusal) => self.not_those(ask, refusal),
            Stopped::Cancelled => Failure::Cancelled,
        })?;
        match loaded {
            Ok(loaded) => Ok(loaded.map_err(|error| refuse(&ask.model, &error))?),
            Err(_) => Err(failed(&ask.model, "the loader panicked; see the log").into()),
        }
    }

    /// Bytes that are not the digest's: of the cache, they leave it.
    fn not_those(&self, ask: &Ask, refusal: Refusal) -> Failure {
        let Some(held) = &ask.held else { return Failure::Refused(refusal) };
        match self.fetcher.discard(held) {
            Ok(()) => Failure::Spoilt,
            Err(refusal) => Failure::Refused(refusal),
        }
    }

    /// Says how far the hashing is, and hears whether the checkpoint is still wanted.
    fn watch<'a>(&'a self, ask: &'a Ask) -> Watch<'a> {
        let said = Mutex::new((None::<Instant>, 0));
        Box::new(move |done_bytes, total_bytes| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let due = said.0.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) || done_bytes == total_bytes;
            // Several threads hash, and a later word may come first.
            if due && done_bytes >= said.1 {
                self.say(ask.ticket, News::Progress(ModelState::Verifying { done_bytes, total_bytes }));
                *said = (Some(Instant::now()), done_bytes);
            }
            wanted(ask).is_ok()
        })
    }
}

/// An order without what it moves.
struct Ask {
    ticket: u64,
    model: DesiredModel,
    room_bytes: Option<u64>,
    held: Option<Arc<Held>>,
    unwanted: CancellationToken,
}

/// What fails is on the disk still.
fn park<P: Pipeline>(ask: &Ask, pipeline: P) -> Landed<P> {
    match pipeline.park() {
        Ok(parked) => Landed::Host(parked),
        Err(error) => {
            tracing::error!(model = %ask.model.id, error = crate::chain(&error), "failed to park it in the host's memory");
            Landed::Disk
        }
    }
}

fn wanted(ask: &Ask) -> Result<(), Failure> {
    if ask.unwanted.is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
}

fn fits(need_bytes: u64, room_bytes: Option<u64>) -> Result<(), Failure> {
    match room_bytes {
        Some(room_bytes) if need_bytes > room_bytes => Err(Failure::NoRoom { need_bytes }),
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
