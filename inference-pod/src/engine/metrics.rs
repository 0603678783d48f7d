//! What the engine counts. Labels are bounded: places in a batch, the first shapes, and models that are resident.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use easel_api::engine::{Tier, TierBytes};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::pipeline::BatchKey;

/// Clients choose sizes; the first so many shapes have a label of their own, and all later ones `other`.
const MAX_SHAPES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StepLabel {
    batch: u64,
    /// Latents' width and height, and rows of the model's batch for each picture.
    shape: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: String,
}

/// Between tiers; a store or a folder that nobody has proved yet is `nowhere`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    from: &'static str,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

#[derive(Clone, Debug)]
pub struct EngineMetrics {
    pub(super) waiting: Gauge,
    pub(super) running: Gauge,
    step_seconds: Family<StepLabel, Histogram>,
    shapes: Arc<Mutex<BTreeSet<String>>>,
    batch_occupancy: Histogram,
    pub(super) queue_seconds: Histogram,
    pub(super) cancelled_steps: Counter,
    pub(super) handed_over: Counter,
    pub(super) resumed: Counter,
    pub(super) resumed_steps: Counter,
    pub(super) snapshots_refused: Counter,
    pub(super) snapshot_bytes: Counter,
    loads: Family<WayLabel, Histogram>,
    demotions: Family<WayLabel, Counter>,
    resident_bytes: Family<TierLabel, Gauge>,
    pub(super) verify_seconds: Histogram,
    pub(super) model_ready: Family<ModelLabel, Gauge>,
    pub(super) fetch_seconds: Histogram,
    pub(super) fetched_bytes: Counter,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) cache_evictions: Counter,
    pub(super) cache_bytes: Gauge,
    pub(super) adapter_load_seconds: Histogram,
    pub(super) adapter_evictions: Counter,
    pub(super) adapter_bytes: Gauge,
}

impl EngineMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        // 1 ms (few-step models on small pictures) to a minute (large pictures on CPUs), a factor of 2 apart.
        let steps = || Histogram::new((0..17).map(|i| 0.001 * f64::from(1 << i)));
        // 0.1 s to 27 minutes.
        let loads = || Histogram::new((0..15).map(|i| 0.1 * f64::from(1 << i)));
        let metrics = Self {
            waiting: Gauge::default(),
            running: Gauge::default(),
            step_seconds: Family::new_with_constructor(steps),
            shapes: Arc::default(),
            batch_occupancy: Histogram::new((1..=8).map(|eighth| f64::from(eighth) / 8.0)),
            // 1 ms to 17 minutes.
            queue_seconds: Histogram::new((0..21).map(|i| 0.001 * f64::from(1 << i))),
            cancelled_steps: Counter::default(),
            handed_over: Counter::default(),
            resumed: Counter::default(),
            resumed_steps: Counter::default(),
            snapshots_refused: Counter::default(),
            snapshot_bytes: Counter::default(),
            loads: Family::new_with_constructor(loads),
            demotions: Family::default(),
            resident_bytes: Family::default(),
            verify_seconds: loads(),
            model_ready: Family::default(),
            fetch_seconds: loads(),
            fetched_bytes: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            cache_evictions: Counter::default(),
            cache_bytes: Gauge::default(),
            // 1 ms to half a minute: files of a few MB to a few hundred.
            adapter_load_seconds: Histogram::new((0..16).map(|i| 0.001 * f64::from(1 << i))),
            adapter_evictions: Counter::default(),
            adapter_bytes: Gauge::default(),
        };
        metrics.register_cache(registry);
        metrics.register_adapters(registry);
        metrics.register_steps(registry);
        metrics.register_hand_overs(registry);
        metrics.register_tiers(registry);
        let Self { waiting, running, verify_seconds, model_ready, .. } = metrics.clone();
        registry.register("waiting", "Pictures that wait for their first step", waiting);
        registry.register("running", "Pictures between their first step and their last", running);
        registry.register_with_unit("verify", "Verifying a checkpoint's digest", Unit::Seconds, verify_seconds);
        registry.register("model_ready", "1 when the model can draw", model_ready);
        metrics
    }

    fn register_tiers(&self, registry: &mut Registry) {
        let Self { loads, demotions, resident_bytes, .. } = self.clone();
        let load = "Loading and warming up a checkpoint, or bringing it to a higher tier";
        registry.register_with_unit("load", load, Unit::Seconds, loads);
        registry.register("demotions", "Checkpoints that were put into a lower tier", demotions);
        registry.register_with_unit("resident", "What checkpoints take, by tier", Unit::Bytes, resident_bytes);
    }

    pub(super) fn moved(&self, from: Option<Tier>, to: Tier, took: Duration) {
        let label = WayLabel { from: from.map_or("nowhere", Tier::as_str), to: to.as_str() };
        if from < Some(to) {
            self.loads.get_or_create(&label).observe(took.as_secs_f64());
        } else {
            self.demotions.get_or_create(&label).inc();
        }
    }

    pub(super) fn holds(&self, TierBytes { disk, host, device }: TierBytes) {
        for (tier, bytes) in [(Tier::Disk, disk), (Tier::Host, host), (Tier::Device, device)] {
            let gauge = self.resident_bytes.get_or_create(&TierLabel { tier: tier.as_str() });
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    fn register_steps(&self, registry: &mut Registry) {
        let Self { step_seconds, batch_occupancy, queue_seconds, cancelled_steps, .. } = self.clone();
        let step = "Duration of one denoise step by pictures in it and shape";
        registry.register_with_unit("step", step, Unit::Seconds, step_seconds);
        registry.register("batch_occupancy", "Places of a step that were taken, of --max-batch", batch_occupancy);
        let queue = "From a request's arrival to its first step";
        registry.register_with_unit("queue", queue, Unit::Seconds, queue_seconds);
        let cancelled = "Steps of pictures that nobody got: cancelled, abandoned, late or failed";
        registry.register("cancelled_steps", cancelled, cancelled_steps);
    }

    fn register_hand_overs(&self, registry: &mut Registry) {
        let Self { handed_over, resumed, resumed_steps, snapshots_refused, snapshot_bytes, .. } = self.clone();
        registry.register("handed_over", "Requests given back for another pod, because this one goes", handed_over);
        registry.register("resumed", "Pictures that went on from a snapshot of another pod", resumed);
        registry.register("resumed_steps", "Steps that those had behind them, and did not take again", resumed_steps);
        let refused = "Snapshots from elsewhere that could not be used: those pictures were drawn from the beginning";
        registry.register("snapshots_refused", refused, snapshots_refused);
        registry.register_with_unit("snapshots", "What snapshots took", Unit::Bytes, snapshot_bytes);
    }

    pub(super) fn stepped(&self, key: BatchKey, jobs: usize, max_batch: usize, duration: Duration) {
        let label = StepLabel { batch: jobs as u64, shape: self.shape(key) };
        self.step_seconds.get_or_create(&label).observe(duration.as_secs_f64());
        self.batch_occupancy.observe(jobs as f64 / max_batch as f64);
    }

    fn shape(&self, key: BatchKey) -> String {
        let shape = format!("{}x{}x{}", key.width, key.height, key.rows);
        // Every change is a single step, so a panic elsewhere leaves it whole.
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() < MAX_SHAPES {
            shapes.insert(shape.clone());
        }
        if shapes.contains(&shape) { shape } else { "other".into() }
    }

    fn register_adapters(&self, registry: &mut Registry) {
        let Self { adapter_load_seconds, adapter_evictions, adapter_bytes, .. } = self.clone();
        let load = "Reading and verifying an adapter";
        registry.register_with_unit("adapter_load", load, Unit::Seconds, adapter_load_seconds);
        registry.register("adapter_evictions", "Adapters that left memory for others", adapter_evictions);
        registry.register_with_unit("adapter", "What adapters take in memory", Unit::Bytes, adapter_bytes);
    }

    fn register_cache(&self, registry: &mut Registry) {
        let Self { fetch_seconds, fetched_bytes, cache_hits, cache_misses, cache_evictions, cache_bytes, .. } =
            self.clone();
        let fetch = "Bringing a checkpoint from its store into the cache";
        registry.register_with_unit("fetch", fetch, Unit::Seconds, fetch_seconds);
        registry.register_with_unit("fetched", "What came from stores", Unit::Bytes, fetched_bytes);
        registry.register("cache_hits", "Checkpoints that were in the cache already", cache_hits);
        registry.register("cache_misses", "Checkpoints that had to be fetched", cache_misses);
        registry.register("cache_evictions", "Checkpoints that had to leave the cache", cache_evictions);
        registry.register_with_unit("cache", "What the cache holds, after the last fetch", Unit::Bytes, cache_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_beyond_the_first_share_a_label() {
        let metrics = EngineMetrics::register(&mut Registry::default());
        let key = |side| BatchKey { input_channels: 4, height: side, width: side, text_length: 77, rows: 2 };
        let labels: BTreeSet<_> = (1..100).map(|side| metrics.shape(key(side))).collect();
        assert_eq!(labels.len(), MAX_SHAPES + 1);
        assert_eq!((metrics.shape(key(1)), metrics.shape(key(99))), ("1x1x2".into(), "other".into()));
    }
}
