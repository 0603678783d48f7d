//! The engine protocol: desired residency in, load report out.
//! Parses, asks the engine, renders; decides nothing.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use easel_api::engine::{Report, Residency};
use easel_api::error::ApiError;
use futures::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::respond::{Refused, read_body};
use crate::engine::{ResidencyError, Snapshot};

/// Far above a pod's worth of models.
const MAX_RESIDENCY_BODY: u64 = 1 << 20;
/// Two lines of a report are at least this far apart, whatever changes.
const REPORT_EVERY_LEAST: Duration = Duration::from_millis(100);
/// A line comes after this time even if nothing changes, so that a dead pod is told from a quiet one.
const REPORT_EVERY_MOST: Duration = Duration::from_secs(1);

pub(super) async fn put(State(shared): State<Shared>, body: Body) -> Result<Json<Report>, Refused> {
    let body = read_body(body, MAX_RESIDENCY_BODY).await?;
    let residency: Residency = serde_json::from_slice(&body)
        .map_err(|error| ApiError::malformed(format!("the body is not a residency: {error}")))?;
    let generation = residency.generation;
    match shared.engine.hold(residency).await {
        Ok(report) => {
            tracing::info!(term = generation.term, sequence = generation.sequence, "residency accepted");
            Ok(Json(Report { draining: shared.drain.is_draining(), ..report }))
        }
        Err(error @ ResidencyError::Stale { .. }) => Err(ApiError::stale(error.to_string()).into()),
        Err(error @ ResidencyError::Duplicate(_)) => {
            Err(ApiError::invalid("models", "duplicate_model", error.to_string()).into())
        }
        Err(error @ ResidencyError::Stopped) => Err(ApiError::internal(error.to_string()).into()),
    }
}

pub(super) async fn report(State(shared): State<Shared>) -> Response {
    let lines = Lines {
        snapshots: shared.engine.watch(),
        draining: shared.drain.watch(),
        stopping: shared.stopping.clone(),
        last: None,
    };
    let body = Body::from_stream(stream::unfold(lines, Lines::next));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

struct Lines {
    snapshots: watch::Receiver<Snapshot>,
    draining: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    last: Option<Instant>,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<Bytes, serde_json::Error>, Self)> {
        if let Some(last) = self.last
            && self.wait(last).await.is_break()
        {
            return None;
        }
        self.last = Some(Instant::now());
        let draining = *self.draining.borrow_and_update();
        let report = Report { draining, ..self.snapshots.borrow_and_update().report.clone() };
        let line = serde_json::to_vec(&report).map(|mut line| {
            line.push(b'\n');
            line.into()
        });
        Some((line, self))
    }

    /// For a change or the second, but no line sooner than the least distance. Breaks when the pod stops.
    async fn wait(&mut self, last: Instant) -> std::ops::ControlFlow<()> {
        let quiet = tokio::time::sleep_until(last + REPORT_EVERY_MOST);
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return std::ops::ControlFlow::Break(()),
            changed = self.snapshots.changed() => if changed.is_err() {
                return std::ops::ControlFlow::Break(()); // the engine is gone; a stream that goes on would hide it
            },
            _ = self.draining.changed() => {}
            () = quiet => {}
        }
        tokio::time::sleep_until(last + REPORT_EVERY_LEAST).await;
        std::ops::ControlFlow::Continue(())
    }
}
