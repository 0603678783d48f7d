//! Adapters of the models that are resident: which lie on disk, which are in memory beside their model, and who waits for
//! one. Owns these three; knows models by name and pipelines by number, and computes nothing.

mod loading;
mod shelf;
mod stock;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use easel_api::engine::{AdapterReport, AdapterState, DesiredModel, ModelId, RefusalReason};
use easel_checkpoints::{Fetcher, Refusal};
use tokio::sync::mpsc::WeakSender;
use tokio::sync::oneshot;

pub(super) use self::loading::Order;
use self::loading::{Fetching, News};
use self::shelf::{Key, Shelf};
use self::stock::{Disk, Stock};
use super::{Command, DrawError, DrawRequest, Drawn, EngineMetrics};
use crate::pipeline::{Loader, Pipeline, WornAdapter};
use crate::scheduler::PipelineId;

/// A request whose adapters are not all in memory.
pub(super) struct Parked {
    pub(super) request: Box<DrawRequest>,
    pub(super) reply: oneshot::Sender<Result<Drawn, DrawError>>,
}

/// An adapter that was read and has no place yet.
struct Arrived<A> {
    model: ModelId,
    key: Key,
    adapter: A,
    bytes: u64,
}

/// One that has got its place: these leave, and it comes.
pub(super) struct Placed<A> {
    pub(super) pipeline: PipelineId,
    pub(super) digest: String,
    pub(super) adapter: A,
    pub(super) leaving: Vec<(PipelineId, String)>,
}

pub(super) struct Adapters<P: Pipeline> {
    stock: Stock,
    shelf: Shelf,
    parked: VecDeque<Parked>,
    arrived: Option<Arrived<P::Adapter>>,
    /// Somebody reads one.
    is_loading: bool,
    orders: SyncSender<Order<P>>,
    news: Receiver<News<P>>,
    fetching: Fetching<P>,
    metrics: EngineMetrics,
}

impl<P: Pipeline> Adapters<P> {
    /// Starts the thread that reads them. Must be called within a runtime, on which they are fetched.
    pub(super) fn start<L: Loader<Pipeline = P>>(
        loader: Arc<L>,
        fetcher: Arc<Fetcher>,
        bell: WeakSender<Command>,
        metrics: EngineMetrics,
        budget: u64,
    ) -> std::io::Result<Self> {
        let (orders, news, fetching) = loading::start(loader, fetcher, bell, metrics.clone())?;
        Ok(Self {
            stock: Stock::default(),
            shelf: Shelf::new(budget),
            parked: VecDeque::new(),
            arrived: None,
            is_loading: false,
            orders,
            news,
            fetching,
            metrics,
        })
    }

    /// Replaces what shall be on disk.
    pub(super) fn apply(&mut self, models: &[DesiredModel]) {
        self.stock.apply(models);
    }

    /// Books what the reading thread and fetches say.
    pub(super) fn hear(&mut self, now: Instant) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Fetched { ticket, result } => self.stock.fetched(ticket, result, now),
                News::Loaded { model, pipeline, digest, result } => {
                    self.is_loading = false;
                    let key = Key { pipeline, digest };
                    match result {
                        Ok((adapter, bytes)) => self.arrived = Some(Arrived { model, key, adapter, bytes }),
                        Err(refusal) => self.stock.refuse(&model, &key.digest, &refusal),
                    }
                }
            }
        }
    }

    /// The adapters of a request that a pipeline shall draw, or `None` when not all are in memory yet.
    pub(super) fn worn(
        &self,
        pipeline: PipelineId,
        request: &DrawRequest,
    ) -> Result<Option<Vec<WornAdapter>>, DrawError> {
        let mut worn = Vec::new();
        let mut is_whole = true;
        for chosen in &request.generation.adapters {
            let entry = self.stock.find(&request.model, &chosen.name).ok_or_else(|| {
                let known = self.stock.names(&request.model);
                DrawError::NoAdapter(easel_api::images::unknown_adapter(&chosen.name, &known))
            })?;
            if let Disk::Refused(refusal) | Disk::Retry { refusal, .. } = &entry.disk {
                let text = format!("the adapter '{}' can't be used: {}", chosen.name, refusal.message);
                return Err(DrawError::AdapterFailed(text));
            }
            let digest = entry.desired.checkpoint.digest.clone();
            is_whole &= self.shelf.holds(pipeline, &digest);
            worn.push(WornAdapter { name: chosen.name.clone(), digest, weight: chosen.weight });
        }
        Ok(is_whole.then_some(worn))
    }

    pub(super) fn is_worn(&mut self, pipeline: PipelineId, worn: &[WornAdapter]) {
        for adapter in worn {
            self.shelf.touch(pipeline, &adapter.digest);
        }
    }

    /// Whether one that was read waits for others to be put down: then nobody takes up what is in memory, or that would
    /// never happen.
    pub(super) fn awaits_room(&self) -> bool {
        self.arrived.is_some()
    }

    pub(super) fn park(&mut self, parked: Parked) {
        self.parked.push_back(parked);
    }

    pub(super) fn take_parked(&mut self) -> VecDeque<Parked> {
        std::mem::take(&mut self.parked)
    }

    /// Pictures of requests that are parked.
    pub(super) fn waiting(&self) -> usize {
        self.parked.iter().map(|parked| parked.request.generation.n as usize).sum()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.parked.iter().filter_map(|parked| parked.request.deadline).min()
    }

    /// What the first parked request that only waits for something to be read needs.
    fn missing(&self, serving: impl Fn(&ModelId) -> Option<PipelineId>) -> Option<(PipelineId, &stock::Entry)> {
        self.parked.iter().find_map(|Parked { request, reply: _ }| {
            let pipeline = serving(&request.model)?;
            let mut entries =
                request.generation.adapters.iter().filter_map(|a| self.stock.find(&request.model, &a.name));
            let is_missing = |entry: &&stock::Entry| {
                matches!(entry.disk, Disk::There(_)) && !self.shelf.holds(pipeline, &entry.desired.checkpoint.digest)
            };
            Some((pipeline, entries.find(is_missing)?))
        })
    }

    /// What shall be read next, if nobody reads and nothing waits for room. Also starts fetches that are due.
    pub(super) fn next_order(
        &mut self,
        now: Instant,
        serving: impl Fn(&ModelId) -> Option<PipelineId>,
        layers: impl Fn(PipelineId) -> Option<P::Layers>,
    ) {
        while let Some(order) = self.stock.next_fetch(now) {
            self.fetching.start(order);
        }
        if self.is_loading || self.arrived.is_some() {
            return;
        }
        let Some((pipeline, entry)) = self.missing(serving) else { return };
        let (Disk::There(held), Some(layers)) = (&entry.disk, layers(pipeline)) else { return };
        let (model, checkpoint, held) = (entry.model.clone(), entry.desired.checkpoint.clone(), held.clone());
        self.is_loading = self.orders.try_send(Order { model, pipeline, checkpoint, held, layers }).is_ok();
    }

    /// Gives what has arrived its place, when there is room. `in_use` are digests that requests draw with.
    pub(super) fn settle(
        &mut self,
        in_use: &[String],
        serving: impl Fn(&ModelId) -> Option<PipelineId>,
    ) -> Option<Placed<P::Adapter>> {
        let Arrived { model, key, adapter, bytes } = self.arrived.take()?;
        let asks = |parked: &Parked| {
            let mut adapters = parked.request.generation.adapters.iter();
            let named = |name: &str| self.stock.find(&model, name);
            let is_it = |entry: &stock::Entry| entry.desired.checkpoint.digest == key.digest;
            parked.request.model == model && adapters.any(|chosen| named(&chosen.name).is_some_and(is_it))
        };
        // Whoever asked for it may have left, and its checkpoint too.
        let index = self.parked.iter().position(asks).filter(|_| serving(&model) == Some(key.pipeline))?;
        let beside: Vec<String> = self.digests_of(index);
        let stays = |key: &Key| in_use.contains(&key.digest) || beside.contains(&key.digest);
        if let Some(leaving) = self.shelf.room_for(bytes, stays) {
            self.metrics.adapter_evictions.inc_by(leaving.len() as u64);
            for key in &leaving {
                self.shelf.remove(key);
            }
            self.shelf.insert(key.clone(), bytes);
            tracing::info!(%model, digest = key.digest, bytes, evicted = leaving.len(), "adapter in memory");
            let leaving = leaving.into_iter().map(|key| (key.pipeline, key.digest)).collect();
            return Some(Placed { pipeline: key.pipeline, digest: key.digest, adapter, leaving });
        }
        let budget = self.shelf.budget();
        if bytes > budget {
            let message = format!("it needs {bytes} bytes, and this pod has {budget} for adapters (--adapter-bytes)");
            self.stock.refuse(&model, &key.digest, &Refusal::new(RefusalReason::NoSpace, message));
        } else if self.shelf.keys().any(|key| in_use.contains(&key.digest)) {
            self.arrived = Some(Arrived { model, key, adapter, bytes });
        } else if let Some(Parked { request: _, reply }) = self.parked.remove(index) {
            let text =
                format!("the adapters of this request need more than the {budget} bytes that this pod has for all");
            let _ = reply.send(Err(DrawError::AdapterFailed(text)));
        }
        None
    }

    fn digests_of(&self, parked: usize) -> Vec<String> {
        let Some(Parked { request, reply: _ }) = self.parked.get(parked) else { return Vec::new() };
        let entries = request.generation.adapters.iter().filter_map(|a| self.stock.find(&request.model, &a.name));
        entries.map(|entry| entry.desired.checkpoint.digest.clone()).collect()
    }

    /// Those that leave memory: of pipelines that are gone, of models that do not have them any more, or, `for_room`, all
    /// that nobody draws with.
    pub(super) fn leaving(
        &mut self,
        in_use: &[String],
        model_of: impl Fn(PipelineId) -> Option<ModelId>,
        for_room: bool,
    ) -> Vec<(PipelineId, String)> {
        let stays = |key: &Key| match model_of(key.pipeline) {
            None => false,
            Some(_) if in_use.contains(&key.digest) => true,
            Some(model) => !for_room && self.stock.wants(&model, &key.digest),
        };
        let gone: Vec<Key> = self.shelf.keys().filter(|key| !stays(key)).cloned().collect();
        for key in &gone {
            self.shelf.remove(key);
        }
        self.metrics.adapter_bytes.set(i64::try_from(self.shelf.used_bytes()).unwrap_or(i64::MAX));
        gone.into_iter().map(|key| (key.pipeline, key.digest)).collect()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.shelf.used_bytes()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.stock.next_retry()
    }

    /// Of one model, in the order of the residency.
    pub(super) fn reports(&self, model: &ModelId, serving: Option<PipelineId>) -> Vec<AdapterReport> {
        let report = |entry: &stock::Entry| {
            let digest = entry.desired.checkpoint.digest.clone();
            let in_memory = serving.and_then(|pipeline| self.shelf.bytes(pipeline, &digest));
            let state = match (&entry.disk, in_memory) {
                (Disk::Refused(refusal) | Disk::Retry { refusal, .. }, _) => {
                    AdapterState::Refused { reason: refusal.reason, message: refusal.message.clone() }
                }
                (_, Some(bytes)) => AdapterState::InMemory { bytes },
                (Disk::There(_), None) => AdapterState::OnDisk,
                (Disk::Begin | Disk::Fetching { .. }, None) => AdapterState::Fetching,
            };
            AdapterReport { name: entry.desired.name.clone(), digest, state }
        };
        self.stock.of(model).map(report).collect()
    }
}
