//! Where a gateway gives this pod a request that another pod has begun: in frames, with snapshots of its pictures.
//! Knows frames and their bounds; what is drawn, and from where on, is decided behind it.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use easel_api::error::ApiError;
use easel_api::frames::{Decoder, FRAMES_MEDIA_TYPE, Frame, FrameError, Request};
use easel_api::images::MAX_FORWARDED_EDIT_BODY;
use http_body_util::BodyExt;

use super::Shared;
use super::images::{self, Begun};
use super::respond::{BODY_TIMEOUT, Refused, body_timeout};

/// Of all snapshots of one request. What goes beyond is not held, and its picture is drawn from the beginning.
const MAX_SNAPSHOTS: usize = 128 << 20;

/// What a hand-over consists of.
#[derive(Default)]
struct HandedOver {
    request: Option<Request>,
    body: Vec<u8>,
    begun: Begun,
    /// Bytes of `begun`.
    held: usize,
}

pub(super) async fn take(
    State(shared): State<Shared>,
    mut headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if kind != FRAMES_MEDIA_TYPE.as_bytes() {
        let found: String = String::from_utf8_lossy(kind).chars().take(100).collect();
        return Err(ApiError::unsupported_media_type(&found).into());
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, read(body)).await;
    let HandedOver { request, body, begun, held: _ } = read.map_err(|_| body_timeout())??;
    let Request { path, content_type } = request.ok_or_else(|| malformed("it has no request"))?;
    let kind = HeaderValue::from_str(&content_type).map_err(|_| malformed("its content type is none"))?;
    headers.insert(header::CONTENT_TYPE, kind);
    images::go_on(&shared, &path, &headers, body.into(), begun).await
}

async fn read(mut body: Body) -> Result<HandedOver, ApiError> {
    let (mut decoder, mut handed) = (Decoder::default(), HandedOver::default());
    loop {
        if let Some(bytes) = decoder.coming_snapshot()
            && handed.held + bytes > MAX_SNAPSHOTS
        {
            decoder.skip();
            continue;
        }
        match decoder.next_frame().map_err(|error| unreadable(&error))? {
            Some(Frame::End) => return Ok(handed),
            Some(frame) => handed.add(frame)?,
            None => match body.frame().await {
                Some(Ok(frame)) => decoder.push(&frame.into_data().unwrap_or_else(|_| Bytes::new())),
                Some(Err(error)) => return Err(ApiError::malformed(format!("failed to read the body: {error}"))),
                None => return Err(malformed("it ends before its last frame")),
            },
        }
    }
}

impl HandedOver {
    fn add(&mut self, frame: Frame) -> Result<(), ApiError> {
        match frame {
            Frame::Request(request) => self.request = Some(request),
            Frame::Body(bytes) => {
                if (self.body.len() + bytes.len()) as u64 > MAX_FORWARDED_EDIT_BODY {
                    return Err(ApiError::too_large(MAX_FORWARDED_EDIT_BODY));
                }
                self.body.extend_from_slice(&bytes);
            }
            Frame::Snapshot(snapshot) => {
                self.held += snapshot.bytes.len();
                let before = self.begun.insert(snapshot.picture, snapshot.bytes);
                self.held -= before.map_or(0, |before| before.len());
            }
            Frame::Head(_) | Frame::Moved | Frame::End => return Err(malformed("a frame of an answer is in it")),
        }
        Ok(())
    }
}

fn unreadable(error: &FrameError) -> ApiError {
    malformed(&error.to_string())
}

fn malformed(why: &str) -> ApiError {
    ApiError::malformed(format!("the hand-over can't be read: {why}"))
}
