//! The thread that reads adapters into memory, one at a time and beside the loader of checkpoints, and the tasks that
//! bring them from their stores. Knows files and the Loader; does not know who waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;

use easel_api::engine::{Access, Checkpoint, ModelId, RefusalReason, Source};
use easel_checkpoints::{Fetcher, Files, Held, Progress, Refusal, Stopped};
use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;
use tokio_util::sync::CancellationToken;

use crate::engine::fetching::count;
use crate::engine::{Command, EngineMetrics, priority};
use crate::pipeline::{LoadError, Loader, Pipeline};
use crate::scheduler::PipelineId;

/// What shall be read, for which pipeline.
pub(in crate::engine) struct Order<P: Pipeline> {
    pub(super) model: ModelId,
    pub(super) pipeline: PipelineId,
    pub(super) checkpoint: Checkpoint,
    /// In the cache; `None` for a folder.
    pub(super) held: Option<Arc<Held>>,
    pub(super) layers: P::Layers,
}

/// What shall be fetched.
#[derive(Debug)]
pub(super) struct FetchOrder {
    pub(super) ticket: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) access: Option<Access>,
    /// Cancelled when the adapter is not wanted any more.
    pub(super) unwanted: CancellationToken,
}

pub(super) enum News<P: Pipeline> {
    Fetched {
        ticket: u64,
        result: Result<Held, Refusal>,
    },
    /// The adapter and its bytes.
    Loaded {
        model: ModelId,
        pipeline: PipelineId,
        digest: String,
        result: Result<(P::Adapter, u64), Refusal>,
    },
}

/// The way to the engine. Bounded by what is asked: one word for each order, and orders come one at a time.
struct Mouth<P: Pipeline> {
    news: Sender<News<P>>,
    bell: WeakSender<Command>,
}

impl<P: Pipeline> Clone for Mouth<P> {
    fn clone(&self) -> Self {
        Self { news: self.news.clone(), bell: self.bell.clone() }
    }
}

impl<P: Pipeline> Mouth<P> {
    fn say(&self, news: News<P>) {
        let _ = self.news.send(news); // the engine is gone, and nobody waits
        if let Some(bell) = self.bell.upgrade() {
            let _ = bell.try_send(Command::LoaderSpoke); // full: the engine is awake, and looks here between steps
        }
    }
}

pub(super) struct Fetching<P: Pipeline> {
    runtime: Handle,
    fetcher: Arc<Fetcher>,
    mouth: Mouth<P>,
    metrics: EngineMetrics,
}

type Ends<P> = (SyncSender<Order<P>>, Receiver<News<P>>, Fetching<P>);

pub(super) fn start<L: Loader>(
    loader: Arc<L>,
    fetcher: Arc<Fetcher>,
    bell: WeakSender<Command>,
    metrics: EngineMetrics,
) -> std::io::Result<Ends<L::Pipeline>> {
    let (orders, inbox) = sync_channel(1);
    let (outbox, news) = channel();
    let mouth = Mouth { news: outbox, bell };
    let runtime = Handle::current();
    let fetching = Fetching { runtime, fetcher: fetcher.clone(), mouth: mouth.clone(), metrics: metrics.clone() };
    let reader = Reader { loader, fetcher, mouth, metrics };
    std::thread::Builder::new().name("adapters".into()).spawn(move || reader.run(&inbox))?;
    Ok((orders, news, fetching))
}

impl<P: Pipeline> Fetching<P> {
    pub(super) fn start(&self, order: FetchOrder) {
        let FetchOrder { ticket, checkpoint, access, unwanted } = order;
        let (fetcher, mouth, metrics) = (self.fetcher.clone(), self.mouth.clone(), self.metrics.clone());
        self.runtime.spawn(async move {
            let (progress, started) = (Arc::new(Progress::default()), Instant::now());
            let result = tokio::select! {
                result = fetcher.fetch(&checkpoint, access.as_ref(), &progress) => result,
                () = unwanted.cancelled() => return,
            };
            metrics.fetched_bytes.inc_by(progress.fetched_bytes());
            if let Ok(Held { receipt, .. }) = &result {
                count(&metrics, receipt, started.elapsed());
            }
            mouth.say(News::Fetched { ticket, result });
        });
    }
}

struct Reader<L: Loader> {
    loader: Arc<L>,
    fetcher: Arc<Fetcher>,
    mouth: Mouth<L::Pipeline>,
    metrics: EngineMetrics,
}

impl<L: Loader> Reader<L> {
    fn run(&self, orders: &Receiver<Order<L::Pipeline>>) {
        priority::go_behind();
        for order in orders {
            let started = Instant::now();
            let read = catch_unwind(AssertUnwindSafe(|| self.read(&order)));
            let result = read.unwrap_or_else(|_| Err(failed("the loader panicked; see the log of the pod".into())));
            if let Ok((_, bytes)) = &result {
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(model = %order.model, digest = order.checkpoint.digest, bytes, seconds, "adapter read");
                self.metrics.adapter_load_seconds.observe(seconds);
            }
            let Order { model, pipeline, checkpoint, held: _, layers: _ } = order;
            self.mouth.say(News::Loaded { model, pipeline, digest: checkpoint.digest, result });
        }
    }

    /// Bytes that were all hashed, and are the digest's. Bytes that are not are what is wrong, whatever was made of them.
    fn read(&self, order: &Order<L::Pipeline>) -> Result<(<L::Pipeline as Pipeline>::Adapter, u64), Refusal> {
        let files = self.files(order)?;
        let loaded = self.loader.load_adapter(&files, &order.layers);
        let proved = if loaded.is_ok() { files.prove() } else { files.prove_unused() };
        proved.map_err(|stopped| match stopped {
            Stopped::Refused(refusal) => refusal,
            Stopped::Cancelled => failed("it was not wanted any more".into()),
        })?;
        let adapter = loaded.map_err(|error| match error {
            LoadError::Unsupported(message) => Refusal::new(RefusalReason::Unsupported, message),
            LoadError::Failed { .. } => failed(crate::chain(&error)),
        })?;
        let bytes = L::Pipeline::adapter_bytes(&adapter);
        Ok((adapter, bytes))
    }

    fn files(&self, order: &Order<L::Pipeline>) -> Result<Files<'_>, Refusal> {
        let checkpoint = &order.checkpoint;
        let watch = Box::new(|_, _| true);
        match (&order.held, &checkpoint.source) {
            (Some(held), _) => held.files(watch),
            (None, Source::Folder { path }) => {
                self.fetcher.check_signature(checkpoint)?;
                Files::unproved(path, &checkpoint.digest, watch)
            }
            (None, source @ (Source::Oci { .. } | Source::S3 { .. })) => {
                Err(failed(format!("'{source}' was not fetched; this is a fault of the pod, see its log")))
            }
        }
    }
}

fn failed(message: String) -> Refusal {
    Refusal::new(RefusalReason::LoadFailed, message)
}
