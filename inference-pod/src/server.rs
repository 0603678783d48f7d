//! The pod's three ports: engine (mTLS), probes and metrics (plain). Routes requests and answers with the envelope.
//! Knows HTTP and the engine's handle; knows no pipeline and no scheduler.

mod authorize;
mod cancel;
mod connection;
mod handover;
mod images;
mod metrics;
mod probes;
mod residency;
mod respond;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use clap::Args;
use easel_api::engine::{HANDOVER_PATH, REPORT_PATH, REQUESTS_PATH, RESIDENCY_PATH};
use easel_api::error::ApiError;
use easel_api::images::{EDITS_PATH, GENERATIONS_PATH, MODELS_PATH, VARIATIONS_PATH};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::drain::Drain;
use crate::engine::EngineHandle;
use crate::finishing::Finishing;
use authorize::{Action, guard};
use connection::Acceptor;
pub use metrics::ServerMetrics;
use respond::Refused;

/// For `fuzz/`: a picture that a client sent, of exactly this size, or the client's fault.
#[cfg(fuzzing)]
pub fn decode_picture(
    file: &easel_api::images::PictureFile,
    size: easel_api::ImageSize,
) -> Result<crate::pipeline::Picture, ApiError> {
    images::picture::decode_alone(file, size)
}

#[derive(Args, Clone, Debug)]
pub struct ServerFlags {
    /// Address of the engine port (mTLS)
    #[arg(long, env = "EASEL_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Address of the probes port (plain; /healthz and /readyz only)
    #[arg(long, env = "EASEL_PROBES_LISTEN", default_value = "0.0.0.0:8081")]
    pub probes_listen: SocketAddr,
    /// Address of the metrics port (plain; /metrics only)
    #[arg(long, env = "EASEL_METRICS_LISTEN", default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,
    /// Folder with tls.crt, tls.key and ca.crt
    #[arg(long, env = "EASEL_TLS_DIR", default_value = "/etc/easel/tls")]
    pub tls_dir: PathBuf,
    /// Milliseconds between two looks at the certificate files
    #[arg(long, env = "EASEL_TLS_POLL_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub tls_poll_ms: u64,
}

/// What every handler may use.
#[derive(Clone, Debug)]
struct Shared {
    engine: EngineHandle,
    drain: Drain,
    metrics: ServerMetrics,
    finishing: Finishing,
    /// Turns true when streams shall end.
    stopping: watch::Receiver<bool>,
}

/// Where the ports are bound.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub engine: SocketAddr,
    pub probes: SocketAddr,
    pub metrics: SocketAddr,
}

/// All three ports, serving.
#[derive(Debug)]
pub struct Servers {
    addresses: Addresses,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Servers {
    /// Binds and serves. Fails when a port is taken or the certificates can't be read.
    pub async fn start(
        flags: &ServerFlags,
        engine: EngineHandle,
        finishing: Finishing,
        drain: Drain,
        metrics: ServerMetrics,
        registry: Registry,
    ) -> anyhow::Result<Self> {
        let (stopping, stop) = watch::channel(false);
        let shared = Shared { engine, drain, metrics, finishing, stopping: stop.clone() };
        let certificates = tls::Certificates::load(&flags.tls_dir)?;
        let current = certificates.current();
        let engine = bind(flags.listen).await?;
        let probes = bind(flags.probes_listen).await?;
        let scrapes = bind(flags.metrics_listen).await?;
        let addresses =
            Addresses { engine: engine.local_addr()?, probes: probes.local_addr()?, metrics: scrapes.local_addr()? };
        let mut tasks = JoinSet::new();
        tasks.spawn(certificates.watch(Duration::from_millis(flags.tls_poll_ms), stop.clone()));
        tasks.spawn(connection::serve(engine, Acceptor::Tls(current), engine_routes(&shared), stop.clone()));
        tasks.spawn(connection::serve(probes, Acceptor::Plain, probes::routes(&shared), stop.clone()));
        tasks.spawn(connection::serve(scrapes, Acceptor::Plain, metrics::routes(Arc::new(registry)), stop));
        Ok(Self { addresses, stopping, tasks })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Closes the ports; requests that are being answered are answered first.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}

fn engine_routes(shared: &Shared) -> Router {
    use axum::routing::{delete, get, post, put};
    Router::new()
        .route(GENERATIONS_PATH, guard(post(images::generate), Action::Draw))
        .route(EDITS_PATH, guard(post(images::edit), Action::Draw))
        .route(VARIATIONS_PATH, guard(post(images::vary), Action::Draw))
        .route(MODELS_PATH, guard(get(images::models), Action::ReadReport))
        .route(RESIDENCY_PATH, guard(put(residency::put), Action::PutResidency))
        .route(REPORT_PATH, guard(get(residency::report), Action::ReadReport))
        .route(&format!("{REQUESTS_PATH}/{{id}}"), guard(delete(cancel::cancel), Action::Cancel))
        .route(HANDOVER_PATH, guard(post(handover::take), Action::HandOver))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_path)
        .with_state(shared.clone())
}

async fn unknown_path(request: Request) -> Refused {
    Refused(ApiError::unknown_path(request.method().as_str(), request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Refused {
    Refused(ApiError::method_not_allowed(request.method().as_str(), request.uri().path()))
}
