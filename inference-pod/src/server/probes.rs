//! The port that the kubelet asks: alive, ready, and nothing else.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use easel_api::engine::ModelState;

use super::Shared;
use crate::engine::Snapshot;

pub(super) fn routes(shared: &Shared) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(shared.clone())
}

async fn healthz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.engine.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped\n")
    }
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    match unready(&shared.engine.snapshot(), shared.drain.is_draining(), shared.engine.is_alive()) {
        None => (StatusCode::OK, "ok\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

/// Why the pod is not ready. A model that is being swapped is served by its former checkpoint, so it is ready; a
/// refused one is the operator's to mend and holds nobody else back.
fn unready(snapshot: &Snapshot, draining: bool, alive: bool) -> Option<String> {
    if !alive {
        return Some("the engine has stopped".into());
    }
    if draining {
        return Some("draining".into());
    }
    if !snapshot.accepted {
        return Some("no residency was accepted yet".into());
    }
    let served = |id| snapshot.served.contains_key(id);
    let refused = |state: &ModelState| matches!(state, ModelState::Refused { .. });
    let coming = snapshot.report.models.iter().find(|model| !refused(&model.state) && !served(&model.id));
    match coming {
        Some(model) => Some(format!("{} is not ready yet", model.id)),
        // All that it was told was refused. A spare, which was told to hold nothing, holds all of it.
        None if snapshot.served.is_empty() && !snapshot.report.models.is_empty() => Some("no model can draw".into()),
        None => None,
    }
}
