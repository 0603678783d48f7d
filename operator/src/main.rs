//! The binary: reads the command line, turns SIGTERM into a token, and runs what was asked for.

use anyhow::Context as _;
use clap::Parser;
use easel_operator::cli::{Cli, Command};
use easel_operator::{cleanup, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { log, command } = Cli::parse();
    let filter = EnvFilter::try_new(&log).context("failed to read --log")?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    rustls::crypto::ring::default_provider().install_default().ok(); // fails only when one is installed already
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = option_env!("EASEL_COMMIT").unwrap_or("unknown"),
        "starting"
    );
    let stop = CancellationToken::new();
    cancel_on_signal(&stop)?;
    match command {
        Command::Run(args) => run::run(*args, stop).await,
        Command::Gateway(args) => run::gateway_only(*args, stop).await,
        Command::Cleanup(args) => cleanup::run(args).await,
    }
}

/// Listens from now on: a signal that comes early must not kill.
fn cancel_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
