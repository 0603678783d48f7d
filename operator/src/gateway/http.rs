//! The gateway's paths, and what is answered on those that it does not have.
//! Knows which handler is where; no handler of more than a few lines lives here.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use easel_api::error::ApiError;
use easel_api::images::{EDITS_PATH, GENERATIONS_PATH, MODELS_PATH, VARIATIONS_PATH};

use crate::gateway::{Gateway, body, edits, generations, names, observe, render};

const HINT: &str = "\
Easel: image generation with OpenAI's Images API. Point an OpenAI SDK's base_url at this address with /v1.

POST /v1/images/generations   draw
POST /v1/images/edits         change a picture
POST /v1/images/variations    draw a picture in another way
GET  /v1/models               what can be drawn with
GET  /v1/models/{model}       one of them
";

pub(super) fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/", get(async || HINT))
        .route(GENERATIONS_PATH, post(generations::generate))
        .route(EDITS_PATH, post(edits::edit))
        .route(VARIATIONS_PATH, post(edits::vary))
        .route(MODELS_PATH, get(models))
        // A model's name may be NAMESPACE/NAME.
        .route(&format!("{MODELS_PATH}/{{*id}}"), get(model))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(gateway.clone(), observe::observe))
        .with_state(gateway)
}

async fn models(State(gateway): State<Gateway>) -> Response {
    let table = gateway.table();
    // A list that is not complete would say of a model that it does not exist.
    let starting = || ApiError::unavailable("starting", "the gateway is starting and does not know its models yet", 1);
    render::json_or_error(if table.complete { Ok(names::all(&table)) } else { Err(starting()) })
}

async fn model(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    render::json_or_error(names::one(&gateway.table(), &id))
}

async fn unknown_path(method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    body::discard(&headers, body).await;
    render::error(&ApiError::unknown_path(method.as_str(), &path(&uri)))
}

/// The router adds `allow`.
async fn wrong_method(method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    body::discard(&headers, body).await;
    match method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        method => render::error(&ApiError::method_not_allowed(method.as_str(), &path(&uri))),
    }
}

fn path(uri: &Uri) -> String {
    uri.path().chars().take(256).collect()
}
