//! The handle by which servers ask the engine: draw this, hold these models, what is going on.
//! Owns the channels and the threads' start; knows neither HTTP nor which pipeline computes.
//!
//! One thread computes and owns all that changes; another verifies, loads and warms up, one checkpoint at a time,
//! and hands whole pipelines over. Tasks beside them fetch what lies in a store.

mod adapters;
mod alarm;
mod allocator;
mod awaiting;
mod compute;
mod drawing;
mod fetching;
mod load;
mod metrics;
mod previews;
mod priority;
mod residency;
mod retry;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use clap::Args;
use easel_api::engine::{Generation, MemoryReport, ModelDefaults, ModelId, ModelLimits, Report, Residency};
use easel_api::images::{self, Task};
use easel_api::{Priority, Tenant};
use easel_checkpoints::Fetcher;
use tokio::sync::{mpsc, oneshot, watch};

use self::adapters::Adapters;
use crate::pipeline::{Edit, Loader, Picture, PictureRequest};
use crate::scheduler;
pub use metrics::EngineMetrics;
pub use previews::{Preview, PreviewReceiver, PreviewSender, previews};
pub use snapshots::{SnapshotReceiver, SnapshotSender, snapshots};

#[derive(Args, Clone, Debug)]
pub struct EngineFlags {
    /// Pictures in one model call, at most
    #[arg(long, env = "EASEL_MAX_BATCH", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub max_batch: u32,
    /// Pictures that may wait for their first step; above it requests are answered with 429
    #[arg(long, env = "EASEL_QUEUE_LIMIT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub queue_limit: u32,
    /// Seconds after which nothing that arrives later goes before a request, whatever its deadline
    #[arg(long, env = "EASEL_PATIENCE_SECONDS", default_value_t = 30)]
    pub patience_seconds: u32,
    /// Bytes that weights (in a swap, of both checkpoints) and pictures on their way may take together; 0: no limit
    #[arg(long, env = "EASEL_MEMORY_BYTES", default_value_t = 0)]
    pub memory_bytes: u64,
    /// Bytes of the host's memory for checkpoints that are off the device; 0: none, they leave for the disk. On a CPU,
    /// whose memory is the host's, there is no such tier
    #[arg(long, env = "EASEL_HOST_BYTES", default_value_t = 0)]
    pub host_bytes: u64,
    /// KiB that a model call is taken to need for each latent position, picture and row of guidance, where the device
    /// does not say; 0: only weights count
    #[arg(long, env = "EASEL_ACTIVATION_KIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=65536))]
    pub activation_kib: u32,
    /// Bytes that adapters may take in memory, of all models together; those that nobody asked for for the longest
    /// time leave first. By default ten of SDXL's attention at rank 16 fit in f16, 46 MB each
    #[arg(long, env = "EASEL_ADAPTER_BYTES", default_value_t = 512 << 20)]
    pub adapter_bytes: u64,
}

/// Running jobs for each place in a batch: others may go first while they hold their latents, but not without bound.
const RUNNING_PER_PLACE: usize = 4;
/// Commands that wait for the end of the present step, beside as many draws as may wait.
const SPARE_COMMANDS: usize = 32;

impl EngineFlags {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds.into())
    }

    fn limits(&self) -> scheduler::Limits {
        scheduler::Limits {
            max_batch: self.max_batch as usize,
            max_running: self.max_batch as usize * RUNNING_PER_PLACE,
            max_waiting: self.queue_limit as usize,
            patience: self.patience(),
        }
    }

    fn profile(&self) -> scheduler::MemoryProfile {
        scheduler::MemoryProfile::new(u64::from(self.activation_kib) << 10)
    }
}

/// One client request, resolved.
#[derive(Clone, Debug)]
pub struct DrawRequest {
    pub model: ModelId,
    /// Its seed is decided.
    pub generation: images::Generation,
    /// What it starts from, when a picture shall be changed.
    pub edit: Option<Edit>,
    pub seed: u64,
    pub arrival: Instant,
    pub deadline: Option<Instant>,
    pub sender: Sender,
    /// Where previews go, if there shall be any.
    pub previews: Option<PreviewSender>,
    /// Where snapshots go, if whoever asks can take the request elsewhere with them.
    pub snapshots: Option<SnapshotSender>,
    /// Snapshots from elsewhere, by the picture's place in the request. One that can't be used costs only its steps.
    pub begun: BTreeMap<u32, Bytes>,
}

/// On whose account a request runs, and by what name it is cancelled.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    pub tenant: Tenant,
    pub priority: Priority,
    /// `x-request-id`
    pub id: Option<Arc<str>>,
}

/// The answer: pictures in the order of their seeds.
#[derive(Debug)]
pub struct Drawn {
    /// Of the checkpoint that drew.
    pub digest: String,
    pub pictures: Vec<(PictureRequest, Picture)>,
    pub timings: Timings,
    /// That the text encoder read, of prompt and negative prompt.
    pub text_tokens: u32,
    /// Latent positions of the picture that was sent.
    pub picture_tokens: u64,
    /// Latent positions of all pictures.
    pub image_tokens: u64,
    /// What the model does not know of the prompt; ASCII.
    pub warning: Option<String>,
}

/// Where a request's time went. Steps that its pictures shared count once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub queue: Duration,
    pub encode: Duration,
    pub denoise: Duration,
    pub decode: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    #[error("the model is not resident")]
    NotResident,
    #[error("{waiting} pictures wait already")]
    QueueFull { waiting: u32, calls_left: u64, predicted_wait: Duration },
    #[error("the deadline has passed")]
    Deadline,
    /// The model can't draw this; the text says why.
    #[error("{0}")]
    Unsupported(String),
    /// There is not enough memory beside the weights; the text says what would fit.
    #[error("{0}")]
    TooLarge(String),
    /// The model has no adapter of this name; the text says which it has.
    #[error("{0}")]
    NoAdapter(String),
    /// An adapter of the model can't be used; the text says why.
    #[error("{0}")]
    AdapterFailed(String),
    #[error("the request was cancelled")]
    Cancelled,
    /// The pod goes; what the pictures have come to is with whoever takes snapshots.
    #[error("the request has to go on elsewhere")]
    Moved,
    /// The model failed; logged by the engine.
    #[error("the model failed")]
    Failed,
    #[error("the engine has stopped")]
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResidencyError {
    #[error(
        "generation {}.{} is not newer than {}.{}, which is in force", sent.term, sent.sequence, held.term, held.sequence
    )]
    Stale { sent: Generation, held: Generation },
    #[error("the model '{0}' is named twice")]
    Duplicate(ModelId),
    #[error("the engine has stopped")]
    Stopped,
}

/// What the engine says of itself after every change.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// `draining` is false here: the engine does not know.
    pub report: Report,
    /// True once a residency was accepted.
    pub accepted: bool,
    /// Models that can draw, at once or when they have come to the device; during a swap, by the former checkpoint.
    pub served: BTreeMap<ModelId, Served>,
    /// Until everything admitted is drawn, if nothing else comes: in model calls, and by the last steps' times.
    pub calls_left: u64,
    pub predicted_wait: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub defaults: ModelDefaults,
    pub limits: ModelLimits,
    pub tasks: Vec<Task>,
    pub digest: String,
}

enum Command {
    Draw(Box<DrawRequest>, oneshot::Sender<Result<Drawn, DrawError>>),
    Hold(Residency, oneshot::Sender<Result<Report, ResidencyError>>),
    /// By `x-request-id`; answered with the number of requests that were forgotten.
    Cancel(Arc<str>, oneshot::Sender<usize>),
    /// Whatever can go on elsewhere shall, and nothing of that kind is begun any more.
    HandOver,
    /// The loader thread or a fetch has said something, or something is due.
    LoaderSpoke,
}

/// Cheap to clone; the engine stops when the last is dropped.
#[derive(Clone)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("alive", &self.is_alive()).finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Starts both threads. Must be called within a runtime, on which checkpoints are fetched.
    pub fn start<L: Loader>(
        loader: L,
        flags: &EngineFlags,
        fetcher: Fetcher,
        metrics: EngineMetrics,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel(flags.queue_limit as usize + SPARE_COMMANDS);
        let (publish, snapshot) = watch::channel(Snapshot::empty(flags, loader.device()));
        let host_bytes = if loader.has_host_tier() { flags.host_bytes } else { 0 };
        let (loader, fetcher, bell) = (Arc::new(loader), Arc::new(fetcher), commands.downgrade());
        let loading = load::start(loader.clone(), fetcher.clone(), bell.clone(), metrics.clone())?;
        let adapters = Adapters::start(loader, fetcher, bell, metrics.clone(), flags.adapter_bytes)?;
        let engine = compute::Engine::new(flags, host_bytes, inbox, publish, loading, adapters, metrics);
        std::thread::Builder::new().name("engine".into()).spawn(move || engine.run())?;
        Ok(Self { commands, snapshot })
    }

    /// Draws. Dropping the future cancels the request before the next step.
    pub async fn draw(&self, request: DrawRequest) -> Result<Drawn, DrawError> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(Command::Draw(Box::new(request), reply)) {
            Ok(()) => answer.await.unwrap_or(Err(DrawError::Stopped)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.queue_full()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(DrawError::Stopped),
        }
    }

    /// Replaces what shall be resident; answers as soon as it is accepted, before anything is loaded.
    pub async fn hold(&self, residency: Residency) -> Result<Report, ResidencyError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Hold(residency, reply)).await;
        sent.map_err(|_| ResidencyError::Stopped)?;
        answer.await.unwrap_or(Err(ResidencyError::Stopped))
    }

    /// Forgets the requests of this `x-request-id` before the next step, and gives their number; `None` when the engine
    /// has stopped.
    pub async fn cancel(&self, id: &str) -> Option<usize> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Cancel(id.into(), reply)).await.ok()?;
        answer.await.ok()
    }

    /// Before the next step, gives requests whose asker takes snapshots back with the newest ones, but for those that
    /// are nearly done.
    pub async fn hand_over(&self) {
        let _ = self.commands.send(Command::HandOver).await; // an engine that has stopped has nothing to hand over
    }

    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    pub fn is_alive(&self) -> bool {
        !self.commands.is_closed()
    }

    /// The answer that the engine would give, from its last snapshot.
    pub fn queue_full(&self) -> DrawError {
        let snapshot = self.snapshot.borrow();
        let Snapshot { report, accepted: _, served: _, calls_left, predicted_wait } = &*snapshot;
        let (waiting, calls_left, predicted_wait) = (report.waiting, *calls_left, *predicted_wait);
        DrawError::QueueFull { waiting, calls_left, predicted_wait }
    }
}

impl Snapshot {
    fn empty(flags: &EngineFlags, device: String) -> Self {
        let report = Report {
            generation: Generation::default(),
            models: Vec::new(),
            waiting: 0,
            running: 0,
            left_ms: 0,
            running_left_ms: 0,
            queue_limit: flags.queue_limit,
            draining: false,
            device,
            memory: MemoryReport {
                total_bytes: flags.memory_bytes,
                free_bytes: flags.memory_bytes,
                ..MemoryReport::default()
            },
        };
        Self { report, accepted: false, served: BTreeMap::new(), calls_left: 0, predicted_wait: Duration::ZERO }
    }
}
