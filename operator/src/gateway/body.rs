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

/// What an endpoint reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) media_types: &'static [&'static str],
    /// Bytes.
    pub(super) limit: u64,
}

/// The bytes of a body. `room` is waited for once the request's head is all right, before the first byte is read.
pub(super) async fn read<R>(
    headers: &HeaderMap,
    body: Body,
    accepted: Accepted,
    room: impl Future<Output = Result<R, ApiError>>,
) -> Result<(Bytes, R), ApiError> {
    let room = match check_head(headers, accepted) {
        Ok(()) => room.await,
        Err(refusal) => Err(refusal),
    };
    let room = match room {
        Ok(room) => room,
        Err(refusal) => {
            discard(headers, body).await;
            return Err(refusal);
        }
    };
    match timeout(READ_TIMEOUT, collect(body, accepted.limit)).await {
        Ok(read) => Ok((read?, room)),
        Err(_) => Err(too_slow()),
    }
}

fn check_head(headers: &HeaderMap, accepted: Accepted) -> Result<(), ApiError> {
    let Accepted { media_types, limit } = accepted;
    let found = content_type(headers);
    let media_type = found.split(';').next().unwrap_or_default().trim();
    if !media_types.iter().any(|accepted| media_type.eq_ignore_ascii_case(accepted)) {
        let found: String = found.chars().take(128).collect();
        let message = format!("content-type '{found}' is not supported; send {}", media_types.join(" or "));
        return Err(ApiError { message, ..ApiError::unsupported_media_type(&found) });
    }
    if length(headers).is_some_and(|length| length > limit) { Err(ApiError::too_large(limit)) } else { Ok(()) }
}

pub(super) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("not text"))
}

/// What the client says. A length that is no number has been refused by the HTTP server.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
