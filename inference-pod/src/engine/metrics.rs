//! What the engine counts. Labels are bounded: places in a batch, and models that are resident.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BatchLabel {
    pub(super) batch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: String,
}

#[derive(Clone, Debug)]
pub struct EngineMetrics {
    pub(super) waiting: Gauge,
    pub(super) running: Gauge,
    pub(super) step_seconds: Family<BatchLabel, Histogram>,
    pub(super) load_seconds: Histogram,
    pub(super) verify_seconds: Histogram,
    pub(super) model_ready: Family<ModelLabel, Gauge>,
    pub(super) fetch_seconds: Histogram,
    pub(super) fetched_bytes: Counter,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) cache_evictions: Counter,
    pub(super) cache_bytes: Gauge,
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
            load_seconds: loads(),
            verify_seconds: loads(),
            model_ready: Family::default(),
            fetch_seconds: loads(),
            fetched_bytes: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            cache_evictions: Counter::default(),
            cache_bytes: Gauge::default(),
        };
        metrics.register_cache(registry);
        let Self { waiting, running, step_seconds, load_seconds, verify_seconds, model_ready, .. } = metrics.clone();
        registry.register("waiting", "Pictures that wait for their first step", waiting);
        registry.register("running", "Pictures between their first step and their last", running);
        registry.register_with_unit("step", "Duration of one denoise step by batch size", Unit::Seconds, step_seconds);
        registry.register_with_unit("load", "Loading and warming up a checkpoint", Unit::Seconds, load_seconds);
        registry.register_with_unit("verify", "Verifying a checkpoint's digest", Unit::Seconds, verify_seconds);
        registry.register("model_ready", "1 when the model can draw", model_ready);
        metrics
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
