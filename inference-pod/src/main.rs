//! The binary: reads flags, starts the pod, drains it on SIGTERM.

use anyhow::Context as _;
use clap::Parser;
use easel_inference::backend::{self, BackendFlags};
use easel_inference::pod::PodFlags;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Draws images for Easel's gateway
#[derive(Debug, Parser)]
#[command(name = "easel-inference", version)]
struct Flags {
    #[command(flatten)]
    pod: PodFlags,
    #[command(flatten)]
    backend: BackendFlags,
    /// What is logged: error, warn, info, debug, or a filter by module
    #[arg(long, env = "EASEL_LOG", default_value = "info")]
    log: String,
}

fn main() -> anyhow::Result<()> {
    backend::init();
    let flags = Flags::parse();
    let filter = EnvFilter::try_new(&flags.log).context("failed to read --log")?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    rustls::crypto::ring::default_provider().install_default().ok(); // fails only when one is installed already
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&flags))?;
    // A load or a step in progress may be long; neither holds the exit back.
    backend::exit(0)
}

async fn run(flags: &Flags) -> anyhow::Result<()> {
    let commit = option_env!("EASEL_COMMIT").unwrap_or("unknown");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), commit, pipeline = ?flags.backend.pipeline, "starting");
    // Before the ports open: a signal that comes early must not kill.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let pod = backend::start(&flags.backend, &flags.pod).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    pod.drain().await;
    Ok(())
}
