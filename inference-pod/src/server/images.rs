//! The Images API of one pod: parse, ask the engine, render.
//! Knows headers and bodies; what is drawn when is the engine's.

mod edits;
mod framed;
pub(super) mod picture;
mod render;
mod stream;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use easel_api::engine::ModelId;
use easel_api::error::ApiError;
use easel_api::frames::SNAPSHOT_STEPS_HEADER;
use easel_api::images::{
    EDITS_PATH, GENERATIONS_PATH, Generation, GenerationRequest, MAX_GENERATION_BODY, Model, ModelList, Output,
    Streaming, VARIATIONS_PATH,
};
use easel_api::precedence::{PRIORITY_HEADER, Priority, TENANT_HEADER, Tenant};

use self::render::{Rendering, apart};
use super::Shared;
use super::metrics::Outcome;
use super::respond::{Refused, read_body};
use crate::drain::InFlight;
use crate::engine::{DrawError, DrawRequest, Drawn, PreviewSender, Sender, Served, Snapshot, SnapshotSender};
use crate::pipeline::Edit;

/// Milliseconds that the client will still wait.
const DEADLINE_HEADER: &str = "x-easel-deadline-ms";
/// By which a request can be cancelled.
const REQUEST_ID_HEADER: &str = "x-request-id";
/// Seconds: a drained pod's requests belong elsewhere, at once.
const RETRY_WHEN_DRAINING: u64 = 1;
/// Seconds; no honest prediction is longer than anyone waits.
const RETRY_AT_MOST: u64 = 600;

/// Snapshots from elsewhere, by the picture's place in its request.
pub(super) type Begun = BTreeMap<u32, Bytes>;

pub(super) async fn models(State(shared): State<Shared>) -> Json<ModelList> {
    let model = |id: ModelId| Model { id: id.0, object: "model".into(), created: 0, owned_by: "easel".into() };
    let data = shared.engine.snapshot().served.into_keys().map(model).collect();
    Json(ModelList { object: "list".into(), data })
}

/// Counts a request when it has ended, and one that ends without an answer too: hyper drops the handler, or the body,
/// when its client hangs up.
struct Counted(Option<(Shared, Outcome)>);

impl Counted {
    fn new(shared: &Shared) -> Self {
        Self(Some((shared.clone(), Outcome::Cancelled)))
    }

    fn drawn(&mut self) {
        self.ended(Outcome::Drawn);
    }

    fn failed(&mut self, error: &ApiError) {
        self.ended(outcome(error));
    }

    fn ended(&mut self, how: Outcome) {
        if let Some((_, outcome)) = &mut self.0 {
            *outcome = how;
        }
    }

    fn moved(&mut self) {
        self.ended(Outcome::Moved);
    }

    /// For whoever goes on with the request.
    fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((shared, outcome)) = &self.0 {
            shared.metrics.count(*outcome);
        }
    }
}

pub(super) async fn generate(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let mut counted = Counted::new(&shared);
    let result = answer(&shared, &mut counted, &headers, body, Begun::new()).await;
    ended(counted, result)
}

pub(super) async fn edit(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let mut counted = Counted::new(&shared);
    let result = edits::answer(&shared, edits::Kind::Edit, &mut counted, &headers, body, Begun::new()).await;
    ended(counted, result)
}

pub(super) async fn vary(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let mut counted = Counted::new(&shared);
    let result = edits::answer(&shared, edits::Kind::Variation, &mut counted, &headers, body, Begun::new()).await;
    ended(counted, result)
}

/// A request that another pod has begun: `headers` and `body` are as if it came anew.
pub(super) async fn go_on(
    shared: &Shared,
    path: &str,
    headers: &HeaderMap,
    body: Body,
    begun: Begun,
) -> Result<Response, Refused> {
    let mut counted = Counted::new(shared);
    let result = match path {
        GENERATIONS_PATH => answer(shared, &mut counted, headers, body, begun).await,
        EDITS_PATH => edits::answer(shared, edits::Kind::Edit, &mut counted, headers, body, begun).await,
        VARIATIONS_PATH => edits::answer(shared, edits::Kind::Variation, &mut counted, headers, body, begun).await,
        path => Err(ApiError::unknown_path("POST", path)),
    };
    ended(counted, result)
}

fn ended(mut counted: Counted, result: Result<Response, ApiError>) -> Result<Response, Refused> {
    match &result {
        Ok(_) => counted.drawn(),
        Err(error) => counted.failed(error),
    }
    result.map_err(Refused)
}

/// What shall be drawn for one client, by which model.
struct Wish {
    model: ModelId,
    generation: Generation,
    edit: Option<Edit>,
    output: Output,
    streaming: Option<Streaming>,
    /// Model calls between two snapshots; `None`: whoever asks wants none, and can't go elsewhere.
    snapshot_steps: Option<u32>,
    begun: Begun,
    arrival: Instant,
    deadline: Option<Instant>,
    sender: Sender,
}

impl Wish {
    fn rendering(&self, shared: &Shared) -> Rendering {
        let (model, generation, output) = (self.model.clone(), self.generation.clone(), self.output);
        Rendering { model, generation, output, finishing: shared.finishing.clone() }
    }

    fn request(self, previews: Option<PreviewSender>, snapshots: Option<SnapshotSender>) -> DrawRequest {
        let Self {
            model,
            generation,
            edit,
            output: _,
            streaming: _,
            snapshot_steps: _,
            begun,
            arrival,
            deadline,
            sender,
        } = self;
        // 32 bits: every JSON reader keeps them whole, so the seed that is shown draws the same picture again.
        let seed = generation.seed.unwrap_or_else(|| rand::random::<u32>().into());
        DrawRequest { model, generation, edit, seed, arrival, deadline, sender, previews, snapshots, begun }
    }
}

async fn answer(
    shared: &Shared,
    counted: &mut Counted,
    headers: &HeaderMap,
    body: Body,
    begun: Begun,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let in_flight = shared.drain.enter().ok_or_else(draining)?;
    let (deadline, sender, snapshot_steps) = (deadline(headers, arrival)?, sender(headers)?, snapshot_steps(headers)?);
    check_media_type(headers)?;
    let body = read_body(body, MAX_GENERATION_BODY).await?;
    let request = GenerationRequest::parse(&body)?;
    request.check()?;
    let (model, served) = named(&shared.engine.snapshot(), request.model.as_deref())?;
    let generation = request.resolve(&served.defaults, &served.limits)?;
    let output = writable(shared, &request)?;
    let streaming = request.streaming();
    let wish =
        Wish { model, generation, edit: None, output, streaming, snapshot_steps, begun, arrival, deadline, sender };
    draw(shared, wish, counted, in_flight).await
}

/// What this pod can't do after drawing is refused before.
fn writable(shared: &Shared, request: &GenerationRequest) -> Result<Output, ApiError> {
    let output = request.output()?;
    if output.is_transparent() && shared.finishing.cut_out.is_none() {
        let message = "this pod has no cut-out model for transparent backgrounds: leave background out, or start the \
                       pods with the model's folder at --cut-out";
        return Err(ApiError::invalid("background", "unsupported_value", message));
    }
    if request.upscale.is_some() && shared.finishing.upscale.is_none() {
        let message =
            "this pod has no upscaler: leave upscale out, or start the pods with the model's folder at --upscale";
        return Err(ApiError::invalid("upscale", "unsupported_value", message));
    }
    Ok(output)
}

fn named(snapshot: &Snapshot, model: Option<&str>) -> Result<(ModelId, Served), ApiError> {
    let model = model.ok_or_else(|| ApiError::invalid("model", "missing_model", "model is missing; name one"))?;
    let model = ModelId(model.to_owned());
    let served = snapshot.served.get(&model).cloned();
    let served = served.ok_or_else(|| refuse(&model, DrawError::NotResident))?;
    Ok((model, served))
}

async fn draw(shared: &Shared, wish: Wish, counted: &mut Counted, in_flight: InFlight) -> Result<Response, ApiError> {
    if let Some(streaming) = wish.streaming {
        return stream::answer(shared, wish, streaming, counted.take(), in_flight).await;
    }
    if let Some(every) = wish.snapshot_steps {
        return framed::answer(shared, wish, every, counted, in_flight).await;
    }
    let rendering = wish.rendering(shared);
    let drawn = shared.engine.draw(wish.request(None, None)).await.map_err(|error| refuse(&rendering.model, error))?;
    written(rendering, drawn, in_flight).await
}

async fn written(rendering: Rendering, drawn: Drawn, in_flight: InFlight) -> Result<Response, ApiError> {
    let headers = render::headers(&drawn)?;
    // The request stays in flight until its files are written, whoever still waits for them.
    let body = apart(move || {
        let body = rendering.all(&drawn);
        drop(in_flight);
        body
    });
    Ok((headers, Json(body.await?)).into_response())
}

fn snapshot_steps(headers: &HeaderMap) -> Result<Option<u32>, ApiError> {
    let Some(value) = headers.get(SNAPSHOT_STEPS_HEADER) else { return Ok(None) };
    let steps = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let message = format!("{SNAPSHOT_STEPS_HEADER} is not a number of model calls");
        ApiError::invalid(SNAPSHOT_STEPS_HEADER, "invalid_value", message)
    })?;
    Ok(Some(steps))
}

fn deadline(headers: &HeaderMap, arrival: Instant) -> Result<Option<Instant>, ApiError> {
    let Some(value) = headers.get(DEADLINE_HEADER) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| {
        let message = format!("{DEADLINE_HEADER} is not a number of milliseconds below 2^32");
        ApiError::invalid(DEADLINE_HEADER, "invalid_value", message)
    })?;
    Ok(Some(arrival + Duration::from_millis(ms.into())))
}

fn sender(headers: &HeaderMap) -> Result<Sender, ApiError> {
    let value = |name| headers.get(name).map(HeaderValue::as_bytes);
    Ok(Sender {
        tenant: Tenant::of_header(value(TENANT_HEADER))?,
        priority: Priority::of_header(value(PRIORITY_HEADER))?,
        id: headers.get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).map(Into::into),
    })
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(&found.chars().take(100).collect::<String>()))
}

fn draining() -> ApiError {
    let message = "this pod finishes what it has and stops; send the request to another one";
    ApiError::unavailable("draining", message, RETRY_WHEN_DRAINING)
}

fn refuse(model: &ModelId, error: DrawError) -> ApiError {
    match error {
        DrawError::NotResident => ApiError {
            code: Some("model_not_resident".into()),
            message: format!("the model '{model}' is not ready in this pod; another one may hold it"),
            ..ApiError::model_not_found(model.as_str())
        },
        DrawError::QueueFull { waiting, calls_left, predicted_wait } => {
            let seconds = (predicted_wait.as_secs_f64().ceil() as u64).max(1);
            let message = format!("{waiting} pictures wait already; about {seconds} s of work in {calls_left} steps");
            ApiError::queue_full(message, seconds.min(RETRY_AT_MOST))
        }
        DrawError::Deadline => {
            ApiError::deadline(format!("the deadline of {DEADLINE_HEADER} passed before the pictures were drawn"))
        }
        DrawError::Unsupported(message) => {
            ApiError { param: None, ..ApiError::invalid("prompt", "unsupported_value", message) }
        }
        DrawError::TooLarge(message) => ApiError::invalid("size", "size_does_not_fit", message),
        // The gateway knows what the model has: this pod was not told yet, and another one may have been.
        DrawError::NoAdapter(message) => ApiError {
            code: Some("adapter_not_resident".into()),
            param: Some("adapters".into()),
            message,
            ..ApiError::model_not_found(model.as_str())
        },
        DrawError::AdapterFailed(message) => {
            ApiError { status: 422, ..ApiError::invalid("adapters", "adapter_unusable", message) }
        }
        DrawError::Cancelled => cancelled(&error),
        DrawError::Moved => draining(),
        DrawError::Failed => ApiError::internal("the model failed to draw this; the pod's log says why"),
        DrawError::Stopped => ApiError::unavailable("engine_stopped", error.to_string(), RETRY_WHEN_DRAINING),
    }
}

/// 409: whoever may cancel has done so.
fn cancelled(error: &DrawError) -> ApiError {
    ApiError { code: Some("request_cancelled".into()), ..ApiError::stale(error.to_string()) }
}

fn outcome(error: &ApiError) -> Outcome {
    match (error.status, error.code.as_deref()) {
        (404, _) => Outcome::NotResident,
        (409, _) => Outcome::Cancelled,
        (429, _) => Outcome::QueueFull,
        (503, Some("draining")) => Outcome::Draining,
        (504, _) => Outcome::Deadline,
        (400..500, _) => Outcome::Invalid,
        _ => Outcome::Failed,
    }
}
