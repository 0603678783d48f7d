//! The control port of every operator process: what processes of the control plane tell each other, over mutual TLS.
//! Knows routes and who may use them; what is told is the gateway's.

mod caller;
mod connection;
mod demand;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use easel_api::demand::DEMAND_PATH;
use easel_api::error::ApiError;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::gateway::{Demand, render};
use crate::pod_client::Credentials;
use caller::{Action, guard};

/// One leader listens; while it changes there are two, and a stalled connection of either may not be noticed yet.
const MAX_READERS: usize = 4;

/// What every handler may use.
#[derive(Clone, Debug)]
struct Shared {
    demand: Demand,
    readers: Arc<Semaphore>,
}

/// Until it is dropped, and all of its connections with it. `credentials` are the gateway's: new connections are served
/// with the newest.
pub async fn serve(listener: TcpListener, credentials: watch::Receiver<Credentials>, demand: Demand) {
    let shared = Shared { demand, readers: Arc::new(Semaphore::new(MAX_READERS)) };
    let routes = Router::new()
        .route(DEMAND_PATH, guard(get(demand::stream), Action::ReadDemand))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_path)
        .with_state(shared);
    connection::serve(listener, credentials, routes).await;
}

async fn unknown_path(request: Request) -> Response {
    render::error(&ApiError::unknown_path(request.method().as_str(), request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Response {
    render::error(&ApiError::method_not_allowed(request.method().as_str(), request.uri().path()))
}
