//! The tasks that bring checkpoints from their stores, beside the loader thread, and say how far they are.
//! Knows the fetcher; does not know what else is resident.

mod rate;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use easel_api::engine::{DesiredModel, ModelState, RefusalReason};
use easel_checkpoints::{Fetcher, Held, Progress, Receipt, Refusal, Stage};
use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;
use tokio_util::sync::CancellationToken;

use super::load::{Event, News};
use super::{Command, EngineMetrics};
use crate::pipeline::Pipeline;
use rate::Rate;

/// Between two words about a fetch; a report goes out ten times a second at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// The engine hears between steps; what it has no place for yet is said again.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// What shall be fetched.
#[derive(Debug)]
pub(super) struct FetchOrder {
    pub(super) ticket: u64,
    pub(super) model: DesiredModel,
    /// Cancelled when the checkpoint is not wanted any more.
    pub(super) unwanted: CancellationToken,
}

pub(super) struct Fetching<P: Pipeline> {
    pub(super) runtime: Handle,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) outbox: SyncSender<Event<P>>,
    pub(super) bell: WeakSender<Command>,
    pub(super) metrics: EngineMetrics,
}

impl<P: Pipeline> Fetching<P> {
    pub(super) fn start(&self, order: FetchOrder) {
        let FetchOrder { ticket, model, unwanted } = order;
        let (fetcher, metrics) = (self.fetcher.clone(), self.metrics.clone());
        let mouth = Mouth { ticket, outbox: self.outbox.clone(), bell: self.bell.clone() };
        let progress = Arc::new(Progress::default());
        let started = Instant::now();
        let mut job = self.runtime.spawn({
            let progress = progress.clone();
            async move { fetcher.find(&model.checkpoint, model.access.as_ref(), &progress).await }
        });
        self.runtime.spawn(async move {
            let told = tell(&progress, &mouth);
            let result = tokio::select! {
                result = &mut job => result.unwrap_or_else(|error| Err(broke(&error))),
                () = told => return job.abort(), // the engine is gone
                () = unwanted.cancelled() => return job.abort(),
            };
            metrics.fetched_bytes.inc_by(progress.fetched_bytes());
            if let Ok(Held { receipt, .. }) = &result {
                count(&metrics, receipt, started.elapsed());
            }
            mouth.insist(News::Fetched(result)).await;
        });
    }
}

pub(super) fn count(metrics: &EngineMetrics, receipt: &Receipt, took: Duration) {
    let Receipt { hit, evicted, cache_bytes } = *receipt;
    if hit {
        metrics.cache_hits.inc();
    } else {
        metrics.cache_misses.inc();
        metrics.fetch_seconds.observe(took.as_secs_f64());
    }
    // The fetcher counts since it began.
    metrics.cache_evictions.inc_by(evicted.saturating_sub(metrics.cache_evictions.get()));
    metrics.cache_bytes.set(i64::try_from(cache_bytes).unwrap_or(i64::MAX));
}

fn broke(error: &tokio::task::JoinError) -> Refusal {
    let message = format!("the fetch failed within this pod ({error}); see its log");
    Refusal::new(RefusalReason::LoadFailed, message)
}

/// Until the engine is gone.
async fn tell<P: Pipeline>(progress: &Progress, mouth: &Mouth<P>) {
    let (mut rate, mut said) = (Rate::default(), None);
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tick.tick().await;
        let state = match progress.stage() {
            Stage::Asking => continue, // a refusal stays in the report until the store answers
            Stage::Fetching { done_bytes, total_bytes } => {
                let seconds_left = rate.seconds_left(Instant::now(), done_bytes, total_bytes);
                ModelState::Fetching { done_bytes, total_bytes, seconds_left }
            }
            Stage::Verifying { done_bytes, total_bytes } => ModelState::Verifying { done_bytes, total_bytes },
        };
        if said.as_ref() != Some(&state) {
            if let Err(TrySendError::Disconnected(_)) = mouth.say(News::Progress(state.clone())) {
                return;
            }
            said = Some(state);
        }
    }
}

/// The way to the engine.
struct Mouth<P: Pipeline> {
    ticket: u64,
    outbox: SyncSender<Event<P>>,
    bell: WeakSender<Command>,
}

impl<P: Pipeline> Mouth<P> {
    fn say(&self, news: News<P>) -> Result<(), TrySendError<Event<P>>> {
        let said = self.outbox.try_send(Event { ticket: self.ticket, news });
        if let Some(bell) = self.bell.upgrade() {
            let _ = bell.try_send(Command::LoaderSpoke); // full: the engine is awake, and looks here between steps
        }
        said
    }

    async fn insist(&self, mut news: News<P>) {
        while let Err(TrySendError::Full(event)) = self.say(news) {
            news = event.news;
            tokio::time::sleep(SAY_AGAIN).await;
        }
    }
}
