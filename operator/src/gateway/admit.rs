//! Turns what a client sent into a job that some pod can do, or says why not, before anything is queued.
//! Knows the request and the models; does not know pods.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use easel_api::error::ApiError;
use easel_api::images::{
    EDITS_PATH, EditRequest, GENERATIONS_PATH, Generation, GenerationRequest, Task, VARIATIONS_PATH, VariationRequest,
    refusal_of,
};
use easel_api::precedence::{PRIORITY_HEADER, Priority, TENANT_HEADER, Tenant};
use easel_planner::ModelId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::gateway::names;
use crate::routing_table::{RoutingTable, ServedModel};

pub(super) const DEADLINE_HEADER: &str = "x-easel-deadline-ms";

/// Seconds after which asking for a parked model again is worth while: somebody has to change its spec first.
const PARKED_RETRY: u64 = 60;

/// JSON around the pictures, and the response's other fields.
const RESPONSE_OVERHEAD: u64 = 1 << 20;
/// A PNG of RGBA that does not compress has 4 bytes a pixel and a filter byte a row; base64 adds a third.
const RESPONSE_BYTES_PER_PIXEL: u64 = 6;

/// One admitted request. Sent as often as needed, and always the same: the seed is fixed here.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) model: ModelId,
    pub(super) digest: String,
    pub(super) pictures: u32,
    /// Model calls of one picture.
    pub(super) steps: u32,
    /// Of the pod.
    pub(super) path: &'static str,
    /// JSON for the pod.
    pub(super) body: Bytes,
    /// Counts the body, where it is large enough to be counted.
    pub(super) room: Option<Arc<OwnedSemaphorePermit>>,
    pub(super) max_response: u64,
    /// Events, each of at most `max_event` bytes, instead of one answer.
    pub(super) streamed: bool,
    pub(super) max_event: u64,
    pub(super) deadline: Instant,
    pub(super) precedence: Precedence,
}

/// What the client says of a request's weight, for the pod's scheduler. Whoever stands before the gateway and knows its
/// clients may set both headers; nobody proves them here.
#[derive(Clone, Debug, Default)]
pub(super) struct Precedence {
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
}

impl Precedence {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = |name| headers.get(name).map(HeaderValue::as_bytes);
        let (priority, tenant) = (value(PRIORITY_HEADER), value(TENANT_HEADER));
        Ok(Self { priority: Priority::of_header(priority)?, tenant: Tenant::of_header(tenant)? })
    }
}

/// When the request must be answered.
pub(super) fn deadline(headers: &HeaderMap, arrived: Instant, longest: Duration) -> Result<Instant, ApiError> {
    let Some(value) = headers.get(DEADLINE_HEADER) else { return Ok(arrived + longest) };
    let millis = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|millis| *millis > 0);
    let refused = || {
        let message = format!("{DEADLINE_HEADER} must be a whole number of milliseconds, at least 1");
        ApiError::invalid(DEADLINE_HEADER, "invalid_value", message)
    };
    Ok(arrived + Duration::from_millis(millis.ok_or_else(refused)?).min(longest))
}

/// `request` has passed its own `check`.
pub(super) fn generation(
    table: &RoutingTable,
    mut request: GenerationRequest,
    deadline: Instant,
) -> Result<Job, ApiError> {
    let (id, model) = serving(table, &request)?;
    request.check_adapters(&model.adapters)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    if let Some(refusal) = refusal_of(&model.tasks, Task::Generate).filter(|_| !model.tasks.is_empty()) {
        return Err(ApiError::invalid("model", "unsupported_value", refusal));
    }
    settle(&mut request, model);
    let body = serde_json::to_vec(&request).map_err(|_| unwritable())?;
    let streamed = request.streaming().is_some();
    Ok(Job { streamed, ..job(GENERATIONS_PATH, (id, model), &generation, body, deadline) })
}

/// `request` has passed its own `check`.
pub(super) fn edit(table: &RoutingTable, mut request: EditRequest, deadline: Instant) -> Result<Job, ApiError> {
    let (id, model) = serving(table, &request.generation)?;
    request.generation.check_adapters(&model.adapters)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    settle(&mut request.generation, model);
    from_picture(EDITS_PATH, (id, model), &generation, &request, deadline)
}

/// `request` has passed its own `check`.
pub(super) fn variation(
    table: &RoutingTable,
    mut request: VariationRequest,
    deadline: Instant,
) -> Result<Job, ApiError> {
    let (id, model) = serving(table, &request.edit().generation)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    settle(&mut request.edit_mut().generation, model);
    from_picture(VARIATIONS_PATH, (id, model), &generation, request.edit(), deadline)
}

fn from_picture(
    path: &'static str,
    model: (&ModelId, &ServedModel),
    generation: &Generation,
    request: &EditRequest,
    deadline: Instant,
) -> Result<Job, ApiError> {
    let steps = calls(&model.1.tasks, generation, request)?;
    let body = request.to_json().map_err(|_| unwritable())?;
    let streamed = request.generation.streaming().is_some();
    Ok(Job { steps, streamed, ..job(path, model, generation, body, deadline) })
}

/// Refuses what the checkpoint can't do. Before a pod has said what it can, the pod refuses, and the most is counted.
fn calls(tasks: &[Task], generation: &Generation, request: &EditRequest) -> Result<u32, ApiError> {
    if tasks.is_empty() {
        return Ok(generation.model_calls(request.strength));
    }
    request.way(tasks)?.model_calls(generation)
}

fn serving<'a>(
    table: &'a RoutingTable,
    request: &GenerationRequest,
) -> Result<(&'a ModelId, &'a ServedModel), ApiError> {
    let (id, model) = names::resolve(table, request.model.as_deref())?;
    still_served(model)?;
    Ok((id, model))
}

/// Decides what may not differ between two tries, and leaves out what is no pod's business.
fn settle(request: &mut GenerationRequest, model: &ServedModel) {
    request.model = Some(names::full_name(model));
    // 32 bits: what every client reads back exactly, JavaScript's numbers included.
    request.seed.get_or_insert_with(|| u64::from(rand::random::<u32>()));
    request.user = None;
}

fn job(
    path: &'static str,
    (id, model): (&ModelId, &ServedModel),
    generation: &Generation,
    body: Vec<u8>,
    deadline: Instant,
) -> Job {
    let bytes_of = |pictures: u32| {
        let pixels = generation.picture_size.pixels().saturating_mul(u64::from(pictures));
        pixels.saturating_mul(RESPONSE_BYTES_PER_PIXEL).saturating_add(RESPONSE_OVERHEAD)
    };
    Job {
        model: id.clone(),
        digest: model.digest.clone(),
        pictures: generation.n,
        steps: generation.model_calls(None),
        path,
        body: body.into(),
        room: None,
        max_response: bytes_of(generation.n),
        streamed: false,
        max_event: bytes_of(1),
        deadline,
        precedence: Precedence::default(),
    }
}

fn unwritable() -> ApiError {
    ApiError::internal("failed to write the request for the pod")
}

/// Is asked again while a request waits: its model may be parked or deleted meanwhile.
pub(super) fn still_there(table: &RoutingTable, job: &Job) -> Result<(), ApiError> {
    match table.models.get(&job.model) {
        Some(model) => still_served(model),
        None if table.complete => Err(ApiError::model_not_found(job.model.as_str())),
        None => Ok(()),
    }
}

fn still_served(model: &ServedModel) -> Result<(), ApiError> {
    if model.parked {
        let message = format!("the model '{}' is parked: its ImageModel's replicas.min is 0", names::full_name(model));
        return Err(ApiError::unavailable("model_parked", message, PARKED_RETRY));
    }
    Ok(())
}
