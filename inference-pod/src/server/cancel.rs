//! Forgets requests by the `x-request-id` that they came with.
//! Parses and asks the engine; whoever waits for such a request is answered by the handler that it waits in.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use easel_api::error::{ApiError, ErrorKind};

use super::Shared;
use super::respond::Refused;

pub(super) async fn cancel(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    match shared.engine.cancel(&id).await {
        Some(0) => Err(unknown(&id).into()),
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(ApiError::internal("the engine has stopped").into()),
    }
}

fn unknown(id: &str) -> ApiError {
    let shown: String = id.chars().take(128).collect();
    ApiError {
        status: 404,
        kind: ErrorKind::NotFound,
        message: format!("no request with x-request-id '{shown}' waits or runs in this pod; it may have been answered"),
        param: None,
        code: Some("unknown_request".into()),
        retry_after: None,
    }
}
