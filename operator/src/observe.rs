//! The two ports that speak of the process itself: probes for the kubelet, metrics for Prometheus.
//! Knows no part by more than its name and whether it is ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What must be ready before traffic comes. A part that is not there yet says why.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, &'static str>>>);

impl Readiness {
    /// Not ready, for this reason, until [`Self::done`].
    pub fn awaits(&self, part: &'static str, why: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, why);
    }

    pub fn done(&self, part: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    fn missing(&self) -> Vec<String> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

/// Serves until the process ends: a process that drains is still alive, and still measured.
pub async fn probes(listen: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
    let routes =
        Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz).with_state(readiness));
    serve(listen, "probes", routes).await
}

pub async fn metrics(listen: SocketAddr, registry: Arc<Registry>) -> anyhow::Result<()> {
    serve(listen, "metrics", Router::new().route("/metrics", get(render).with_state(registry))).await
}

async fn serve(listen: SocketAddr, what: &'static str, routes: Router) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("failed to listen on {listen} for {what}"))?;
    tracing::info!(address = %listener.local_addr()?, what, "listening");
    axum::serve(listener, routes).await.with_context(|| format!("failed to serve {what}"))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.missing() {
        missing if missing.is_empty() => (StatusCode::OK, "ok\n".into()),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
    }
}

async fn render(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_is_named_until_it_is_done() {
        let readiness = Readiness::default();
        readiness.awaits("index", "not listed yet");
        assert_eq!(readiness.missing(), ["index: not listed yet"]);
        readiness.done("index");
        assert!(readiness.missing().is_empty());
    }
}
