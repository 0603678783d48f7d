//! The Images API of one pod: parse, ask the engine, render.
//! Knows headers and bodies; what is drawn when is the engine's.

mod edits;
mod picture;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use easel_api::engine::ModelId;
use easel_api::error::ApiError;
use easel_api::images::{
    Generation, GenerationRequest, Image, ImagesResponse, InputTokens, MAX_GENERATION_BODY, Model, ModelList, Output,
    Usage,
};
use easel_api::precedence::{PRIORITY_HEADER, Priority, TENANT_HEADER, Tenant};

use super::Shared;
use super::metrics::Outcome;
use super::respond::{Refused, read_body};
use crate::cut_out::CutOut;
use crate::drain::InFlight;
use crate::engine::{DrawError, DrawRequest, Drawn, Sender, Served, Snapshot, Timings};
use crate::picture_file::{self, FileError};
use crate::pipeline::{Edit, PipelineError};
use crate::png::Provenance;

/// Milliseconds that the client will still wait.
const DEADLINE_HEADER: &str = "x-easel-deadline-ms";
/// By which a request can be cancelled.
const REQUEST_ID_HEADER: &str = "x-request-id";
/// What the model does not know of the prompt.
const WARNING_HEADER: &str = "x-easel-warning";
const DIGEST_HEADER: &str = "x-easel-model-digest";
/// Seconds: a drained pod's requests belong elsewhere, at once.
const RETRY_WHEN_DRAINING: u64 = 1;
/// Seconds; no honest prediction is longer than anyone waits.
const RETRY_AT_MOST: u64 = 600;

pub(super) async fn models(State(shared): State<Shared>) -> Json<ModelList> {
    let model = |id: ModelId| Model { id: id.0, object: "model".into(), created: 0, owned_by: "easel".into() };
    let data = shared.engine.snapshot().served.into_keys().map(model).collect();
    Json(ModelList { object: "list".into(), data })
}

/// Counts a request that ends without an answer: hyper drops the handler when its client hangs up.
struct Counted(Shared, Option<Outcome>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.count(self.1.unwrap_or(Outcome::Cancelled));
    }
}

pub(super) async fn generate(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    counted(&shared, answer(&shared, Instant::now(), &headers, body)).await
}

pub(super) async fn edit(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    counted(&shared, edits::answer(&shared, Instant::now(), &headers, body)).await
}

async fn counted(
    shared: &Shared,
    answer: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, Refused> {
    let mut counted = Counted(shared.clone(), None);
    let result = answer.await;
    counted.1 = Some(match &result {
        Ok(_) => Outcome::Drawn,
        Err(error) => outcome(error),
    });
    result.map_err(Refused)
}

/// What shall be drawn for one client, by which model.
struct Wish {
    model: ModelId,
    generation: Generation,
    edit: Option<Edit>,
    output: Output,
    arrival: Instant,
    deadline: Option<Instant>,
    sender: Sender,
}

async fn answer(shared: &Shared, arrival: Instant, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
    let in_flight = shared.drain.enter().ok_or_else(draining)?;
    let (deadline, sender) = (deadline(headers, arrival)?, sender(headers)?);
    check_media_type(headers)?;
    let body = read_body(body, MAX_GENERATION_BODY).await?;
    let request = GenerationRequest::parse(&body)?;
    request.check()?;
    let (model, served) = named(&shared.engine.snapshot(), request.model.as_deref())?;
    let generation = request.resolve(&served.defaults, &served.limits)?;
    let output = writable(shared, &request)?;
    draw(shared, Wish { model, generation, edit: None, output, arrival, deadline, sender }, in_flight).await
}

/// What this pod can't do after drawing is refused before.
fn writable(shared: &Shared, request: &GenerationRequest) -> Result<Output, ApiError> {
    let output = request.output()?;
    if output.is_transparent() && shared.cut_out.is_none() {
        let message = "this pod has no cut-out model for transparent backgrounds: leave background out, or start the \
                       pods with the model's folder at --cut-out";
        return Err(ApiError::invalid("background", "unsupported_value", message));
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

async fn draw(shared: &Shared, wish: Wish, in_flight: InFlight) -> Result<Response, ApiError> {
    let Wish { model, generation, edit, output, arrival, deadline, sender } = wish;
    // 32 bits: every JSON reader keeps them whole, so the seed that is shown draws the same picture again.
    let seed = generation.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let (drawer, wanted) = (model.clone(), generation.clone());
    let request = DrawRequest { model: drawer, generation: wanted, edit, seed, arrival, deadline, sender };
    let drawn = shared.engine.draw(request).await.map_err(|error| refuse(&model, error))?;
    let rendering = Rendering { model, generation, output, drawn, cut_out: shared.cut_out.clone() };
    render(rendering, in_flight).await
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
        DrawError::Cancelled => cancelled(&error),
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

/// What becomes of drawn pictures.
struct Rendering {
    model: ModelId,
    generation: Generation,
    output: Output,
    drawn: Drawn,
    cut_out: Option<Arc<dyn CutOut>>,
}

#[derive(Debug, thiserror::Error)]
enum RenderError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("failed to take the background away")]
    CutOut(#[from] PipelineError),
}

/// Cutting out and compressing take as long as a step, so they have a thread of their own. The request stays in flight
/// until they are done.
async fn render(rendering: Rendering, in_flight: InFlight) -> Result<Response, ApiError> {
    let headers = headers(&rendering.drawn)?;
    let rendered = tokio::task::spawn_blocking(move || {
        let response = images(&rendering).map(|body| (headers, Json(body)).into_response());
        drop(in_flight);
        response
    });
    rendered.await.map_err(|_| ApiError::internal("failed to write the pictures"))?.map_err(|error| {
        tracing::error!(error = crate::chain(&error), "failed to write a picture");
        ApiError::internal(error.to_string())
    })
}

fn images(rendering: &Rendering) -> Result<ImagesResponse, RenderError> {
    let Rendering { model, generation, output, drawn, cut_out } = rendering;
    let cut_out = cut_out.as_ref().filter(|_| output.is_transparent());
    let provenance = Provenance { model: model.as_str(), digest: &drawn.digest };
    let mut data = Vec::with_capacity(drawn.pictures.len());
    for (request, picture) in &drawn.pictures {
        let mask = cut_out.map(|cut_out| cut_out.mask(picture)).transpose()?;
        let bytes = picture_file::encode(picture, mask.as_ref(), output.encoding, request, &provenance)?;
        let b64_json = base64::engine::general_purpose::STANDARD.encode(bytes);
        data.push(Image { b64_json, seed: request.seed });
    }
    let (text_tokens, image_tokens) = (u64::from(drawn.text_tokens), drawn.picture_tokens);
    let input_tokens = text_tokens + image_tokens;
    Ok(ImagesResponse {
        created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        data,
        background: output.background,
        output_format: output.format(),
        size: generation.size,
        quality: generation.quality,
        usage: Usage {
            total_tokens: input_tokens + drawn.image_tokens,
            input_tokens,
            output_tokens: drawn.image_tokens,
            input_tokens_details: InputTokens { text_tokens, image_tokens },
        },
    })
}

fn headers(drawn: &Drawn) -> Result<HeaderMap, ApiError> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ApiError::internal("failed to write a header"));
    let mut headers = HeaderMap::new();
    headers.insert(DIGEST_HEADER, value(&drawn.digest)?);
    if let Some(warning) = &drawn.warning {
        headers.insert(WARNING_HEADER, value(warning)?);
    }
    headers.insert("server-timing", value(&server_timing(&drawn.timings))?);
    Ok(headers)
}

/// Durations in milliseconds, as the Server Timing document has them.
fn server_timing(timings: &Timings) -> String {
    let Timings { queue, encode, denoise, decode } = timings;
    let parts = [("queue", queue), ("encode", encode), ("denoise", denoise), ("decode", decode)];
    parts.map(|(name, time)| format!("{name};dur={:.1}", time.as_secs_f64() * 1000.0)).join(", ")
}
