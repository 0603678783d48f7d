//! Reads a request's body within a bound of bytes and of time, and gets rid of one that is refused.
//! Knows nothing of what the bytes mean.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use easel_api::error::{ApiError, ErrorKind};
use http_body_util::BodyExt;
use tokio::time::timeout;

/// A client that needs longer for its bytes holds a connection for nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Most clients send all of their body before they look for an answer, and lose the answer if the connection is reset
/// meanwhile. So what is refused is read to its end and thrown away, within these bounds.
const MAX_DISCARDED: u64 = 128 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of a JSON body.
pub(super) async fn read_json(headers: &HeaderMap, body: Body, limit: u64) -> Result<Bytes, ApiError> {
    if let Err(refusal) = check_head(headers, limit) {
        discard(headers, body).await;
        return Err(refusal);
    }
    match timeout(READ_TIMEOUT, collect(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(too_slow()),
    }
}

fn check_head(headers: &HeaderMap, limit: u64) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("not text"));
    let media_type = found.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type(&found.chars().take(128).collect::<String>()));
    }
    // A length that is no number has been refused by the HTTP server.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) { Err(ApiError::too_large(limit)) } else { Ok(()) }
}

async fn collect(mut body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::malformed(format!("failed to read the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() as u64 + data.len() as u64 > limit {
            drop(read);
            drain(body).await;
            return Err(ApiError::too_large(limit));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}

/// Reads what the client still sends. One that waits for "100 Continue" has sent nothing and shall not begin.
pub(super) async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        drain(body).await;
    }
}

async fn drain(mut body: Body) {
    let read = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
            if discarded > MAX_DISCARDED {
                break;
            }
        }
    };
    // Past the bounds the connection is closed under the client, which is all that is left to do.
    let _ = timeout(DISCARD_TIMEOUT, read).await;
}

fn too_slow() -> ApiError {
    ApiError {
        status: 408,
        kind: ErrorKind::InvalidRequest,
        message: format!("the request body did not arrive within {} s", READ_TIMEOUT.as_secs()),
        param: None,
        code: Some("request_timeout".into()),
        retry_after: None,
    }
}
