//! Turns what a client sent into a job that some pod can do, or says why not, before anything is queued.
//! Knows the request and the models; does not know pods.

use std::sync::Arc;

use axum::body::Bytes;
use easel_api::error::ApiError;
use easel_api::images::{
    EDITS_PATH, EditRequest, GENERATIONS_PATH, Generation, GenerationRequest, Task, VARIATIONS_PATH, VariationRequest,
    refusal_of,
};
use easel_planner::ModelId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::gateway::names::{self, Target};
use crate::gateway::terms::{Precedence, Settled, Wishes};
use crate::routing_table::{RoutingTable, ServedModel};

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

/// `request` has passed its own `check`.
pub(super) fn generation(
    table: &RoutingTable,
    mut request: GenerationRequest,
    wishes: &Wishes,
) -> Result<Job, ApiError> {
    let Target { id, model, terms } = serving(table, &request)?;
    let settled = wishes.settle(terms)?;
    request.check_adapters(&model.adapters)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    if let Some(refusal) = refusal_of(&model.tasks, Task::Generate).filter(|_| !model.tasks.is_empty()) {
        return Err(ApiError::invalid("model", "unsupported_value", refusal));
    }
    settle(&mut request, model);
    let body = serde_json::to_vec(&request).map_err(|_| unwritable())?;
    let streamed = request.streaming().is_some();
    Ok(Job { streamed, ..job(GENERATIONS_PATH, (id, model), &generation, body, settled) })
}

/// `request` has passed its own `check`.
pub(super) fn edit(table: &RoutingTable, mut request: EditRequest, wishes: &Wishes) -> Result<Job, ApiError> {
    let Target { id, model, terms } = serving(table, &request.generation)?;
    let settled = wishes.settle(terms)?;
    request.generation.check_adapters(&model.adapters)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    settle(&mut request.generation, model);
    from_picture(EDITS_PATH, (id, model), &generation, &request, settled)
}

/// `request` has passed its own `check`.
pub(super) fn variation(table: &RoutingTable, mut request: VariationRequest, wishes: &Wishes) -> Result<Job, ApiError> {
    let Target { id, model, terms } = serving(table, &request.edit().generation)?;
    let settled = wishes.settle(terms)?;
    let generation = request.resolve(&model.defaults, &model.limits)?;
    settle(&mut request.edit_mut().generation, model);
    from_picture(VARIATIONS_PATH, (id, model), &generation, request.edit(), settled)
}

fn from_picture(
    path: &'static str,
    model: (&ModelId, &ServedModel),
    generation: &Generation,
    request: &EditRequest,
    settled: Settled,
) -> Result<Job, ApiError> {
    let steps = calls(&model.1.tasks, generation, request)?;
    let body = request.to_json().map_err(|_| unwritable())?;
    let streamed = request.generation.streaming().is_some();
    Ok(Job { steps, streamed, ..job(path, model, generation, body, settled) })
}

/// Refuses what the checkpoint can't do. Before a pod has said what it can, the pod refuses, and the most is counted.
fn calls(tasks: &[Task], generation: &Generation, request: &EditRequest) -> Result<u32, ApiError> {
    if tasks.is_empty() {
        return Ok(generation.model_calls(request.strength));
    }
    request.way(tasks)?.model_calls(generation)
}

fn serving<'a>(table: &'a RoutingTable, request: &GenerationRequest) -> Result<Target<'a>, ApiError> {
    let target = names::resolve(table, request.model.as_deref(), rand::random())?;
    still_served(target.model)?;
    Ok(target)
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
    Settled { deadline, precedence }: Settled,
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
        precedence,
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
        let message = format!(
            "the model '{}' is parked: its ImageModel's replicas.min is 0 and it has no replicas.max",
            names::full_name(model)
        );
        return Err(ApiError::unavailable("model_parked", message, PARKED_RETRY));
    }
    Ok(())
}
