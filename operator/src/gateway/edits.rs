//! `POST /v1/images/edits` and `POST /v1/images/variations`: parse; the rest is as for a generation.
//! Owns the room for pictures that clients send; decodes none of them.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use easel_api::error::ApiError;
use easel_api::images::{EditRequest, MAX_EDIT_BODY, VariationRequest};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::gateway::admit::{self, Job};
use crate::gateway::body::{self, Accepted};
use crate::gateway::observe::RequestId;
use crate::gateway::terms::Wishes;
use crate::gateway::{Gateway, generations};
use crate::routing_table::RoutingTable;

const ACCEPTED: Accepted = Accepted { media_types: &["multipart/form-data", "application/json"], limit: MAX_EDIT_BODY };
/// The body, the picture in it, and the JSON for the pod, which is a third longer: at most so many times the body.
const COPIES: u64 = 4;
/// Seconds after which there may be room again.
const RETRY: u64 = 5;

pub(super) async fn edit(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let arrived = Instant::now();
    let job = parse(&gateway, &headers, body, arrived, admit_edit).await;
    generations::run(&gateway, job, &id, arrived).await
}

pub(super) async fn vary(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let arrived = Instant::now();
    let job = parse(&gateway, &headers, body, arrived, admit_variation).await;
    generations::run(&gateway, job, &id, arrived).await
}

async fn admit_edit(table: Arc<RoutingTable>, sent: Sent) -> Result<Job, ApiError> {
    let Sent { content_type, body, wishes } = sent;
    let request = EditRequest::read(&content_type, body).await?;
    request.check()?;
    admit::edit(&table, request, &wishes)
}

async fn admit_variation(table: Arc<RoutingTable>, sent: Sent) -> Result<Job, ApiError> {
    let Sent { content_type, body, wishes } = sent;
    let request = VariationRequest::read(&content_type, body).await?;
    request.check()?;
    admit::variation(&table, request, &wishes)
}

/// A body, and what of its head is needed to read it.
struct Sent {
    content_type: String,
    body: Bytes,
    wishes: Wishes,
}

async fn parse<A: Future<Output = Result<Job, ApiError>>>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
    arrived: Instant,
    admit: impl FnOnce(Arc<RoutingTable>, Sent) -> A,
) -> Result<Job, ApiError> {
    let longest = arrived + gateway.args().request_timeout();
    let length = body::length(headers).unwrap_or(MAX_EDIT_BODY);
    let (body, room) = body::read(headers, body, ACCEPTED, room(gateway, length, longest)).await?;
    let wishes = Wishes::of(headers, arrived, gateway.args().request_timeout())?;
    let sent = Sent { content_type: body::content_type(headers).to_owned(), body, wishes };
    let mut job = admit(gateway.table(), sent).await?;
    job.room = Some(Arc::new(only(room, job.body.len())));
    Ok(job)
}

async fn room(gateway: &Gateway, length: u64, until: Instant) -> Result<OwnedSemaphorePermit, ApiError> {
    let full = |_| {
        let message = "too many pictures are being edited: there was no memory for this one";
        ApiError::unavailable("memory_full", message, RETRY)
    };
    timeout_at(until, gateway.uploads().take(COPIES * length)).await.map_err(full)
}

/// What is kept until the request is answered; the rest was for reading it.
fn only(mut room: OwnedSemaphorePermit, bytes: usize) -> OwnedSemaphorePermit {
    let rest = room.num_permits().saturating_sub(bytes.div_ceil(1024));
    drop(room.split(rest));
    room
}
