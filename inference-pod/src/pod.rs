//! Puts the parts of a pod together and takes them apart again: start, drain, stop.
//! Decides the order of both; everything else is the parts'.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::registry::Registry;

use crate::checkpoint::CheckpointFlags;
use crate::drain::Drain;
use crate::engine::{EngineFlags, EngineHandle, EngineMetrics};
use crate::finishing::Finishing;
use crate::pipeline::Loader;
use crate::server::{Addresses, ServerFlags, ServerMetrics, Servers};

/// What is left of the grace period is for streams and connections to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args, Clone, Debug)]
pub struct PodFlags {
    #[command(flatten)]
    pub server: ServerFlags,
    #[command(flatten)]
    pub engine: EngineFlags,
    #[command(flatten)]
    pub checkpoints: CheckpointFlags,
    /// Seconds that requests have to finish after SIGTERM; a few less than terminationGracePeriodSeconds
    #[arg(long, env = "EASEL_DRAIN_SECONDS", default_value_t = 25)]
    pub drain_seconds: u32,
}

/// A pod that serves.
#[derive(Debug)]
pub struct Pod {
    engine: EngineHandle,
    drain: Drain,
    servers: Servers,
    drain_for: Duration,
}

impl Pod {
    /// Without anything that pictures could be finished with.
    pub async fn start<L: Loader>(loader: L, flags: &PodFlags) -> anyhow::Result<Self> {
        Self::start_with(loader, Finishing::default(), flags).await
    }

    pub async fn start_with<L: Loader>(loader: L, finishing: Finishing, flags: &PodFlags) -> anyhow::Result<Self> {
        let mut registry = Registry::with_prefix("easel_inference");
        let engine_metrics = EngineMetrics::register(&mut registry);
        let server_metrics = ServerMetrics::register(&mut registry);
        let fetcher = flags.checkpoints.fetcher()?;
        let engine = EngineHandle::start(loader, &flags.engine, fetcher, engine_metrics);
        let engine = engine.context("failed to start the engine")?;
        let drain = Drain::default();
        let servers =
            Servers::start(&flags.server, engine.clone(), finishing, drain.clone(), server_metrics, registry).await?;
        let Addresses { engine: address, probes, metrics } = servers.addresses();
        tracing::info!(engine = %address, %probes, %metrics, "listening");
        Ok(Self { engine, drain, servers, drain_for: Duration::from_secs(flags.drain_seconds.into()) })
    }

    pub fn addresses(&self) -> Addresses {
        self.servers.addresses()
    }

    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// Takes nothing new, hands over what can go on elsewhere, finishes the rest within the drain time, and stops. True
    /// when nothing was cut off.
    pub async fn drain(self) -> bool {
        let Self { engine, drain, servers, drain_for } = self;
        drain.begin();
        let report = engine.snapshot().report;
        tracing::info!(waiting = report.waiting, running = report.running, "draining");
        engine.hand_over().await;
        let finished = tokio::time::timeout(drain_for, drain.idle()).await.is_ok();
        if !finished {
            let report = engine.snapshot().report;
            tracing::warn!(waiting = report.waiting, running = report.running, "drain time is over, requests cut off");
        }
        let stopped = tokio::time::timeout(STOP_TIMEOUT, servers.stop()).await.is_ok();
        tracing::info!(finished, stopped, "stopped");
        finished
    }
}
