//! Puts a refusal into an HTTP response, and reads bodies with a bound on bytes and time.
//! Knows axum and the envelope; does not know endpoints.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use easel_api::error::ApiError;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// A sender that has not sent its body by then is not going to.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// An [`ApiError`] as a response.
#[derive(Debug)]
pub(super) struct Refused(pub(super) ApiError);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0.envelope())).into_response();
        if let Some(seconds) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The whole body, up to `limit` bytes.
pub(super) async fn read_body(body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit as usize).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(error)) => Err(ApiError::malformed(format!("failed to read the body: {error}"))),
        Err(_) => Err(body_timeout()),
    }
}

pub(super) fn body_timeout() -> ApiError {
    let message = format!("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs());
    ApiError { status: 408, code: Some("body_timeout".into()), ..ApiError::malformed(message) }
}
