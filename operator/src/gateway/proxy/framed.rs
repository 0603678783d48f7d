//! Answers that come in frames, and requests that go on from snapshots.
//! Knows the order of frames; what a snapshot may take is the request's [`Snapshots`]'.

use std::convert::Infallible;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use easel_api::frames::{Decoder, Frame, FrameError, Head, Request, body_frames};
use futures::{StreamExt, stream};
use reqwest::{Body, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, MAX_ERROR_BODY, Memory, broken, counted, too_long};
use crate::gateway::admit::Job;
use crate::gateway::snapshots::Snapshots;
use crate::gateway::tries::Fault;

/// The request as it came, and how far its pictures are. Written frame by frame: all of it at once would be a second
/// copy of every snapshot.
pub(super) fn handover(job: &Job, snapshots: &Snapshots) -> Body {
    let request = Frame::Request(Request { path: job.path.into(), content_type: "application/json".into() });
    let body: Vec<_> = body_frames(&job.body).collect();
    let snapshots = snapshots.all().into_iter().map(Frame::Snapshot);
    let frames = std::iter::once(request).chain(body).chain(snapshots).chain([Frame::End]);
    Body::wrap_stream(stream::iter(frames).map(|frame| Ok::<_, Infallible>(frame.encode())))
}

/// The body of an answer of `limit` bytes at most, as far as it has come.
struct Begun {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    limit: u64,
    room: OwnedSemaphorePermit,
}

pub(super) async fn read(
    memory: &Memory,
    mut response: Response,
    limit: u64,
    snapshots: &mut Snapshots,
) -> Result<Answer, Fault> {
    let (mut decoder, mut begun, mut room) = (Decoder::default(), None::<Begun>, None);
    loop {
        if room.is_none()
            && let Some(bytes) = decoder.coming_snapshot()
        {
            room = snapshots.room(bytes);
            if room.is_none() {
                decoder.skip();
                continue;
            }
        }
        match (decoder.next_frame().map_err(|error| garbled(&error))?, &mut begun) {
            (None, _) => match response.chunk().await.map_err(|error| broken(&error))? {
                Some(piece) => decoder.push(&piece),
                None => return Err(Fault::Lost("the pod's answer ended before its last frame".into())),
            },
            (Some(Frame::Snapshot(snapshot)), _) => {
                // It has its room, or it would have been skipped.
                if !room.take().is_some_and(|room| snapshots.keep(snapshot, room)) {
                    return Err(out_of_order("a snapshot of no picture of the request"));
                }
            }
            (Some(Frame::Head(head)), None) => begun = Some(begin(memory, head, limit).await?),
            (Some(Frame::Body(bytes)), Some(begun)) => begun.add(&bytes)?,
            (Some(Frame::End), Some(_)) => return begun.map(Begun::end).ok_or_else(|| out_of_order("no head")),
            (Some(Frame::Moved), _) => return Err(Fault::Moved),
            (Some(Frame::Head(_) | Frame::Request(_) | Frame::Body(_) | Frame::End), _) => {
                return Err(out_of_order("a frame where it does not belong"));
            }
        }
    }
}

async fn begin(memory: &Memory, Head { status, headers }: Head, limit: u64) -> Result<Begun, Fault> {
    let status = StatusCode::from_u16(status).map_err(|_| out_of_order("a head without a status"))?;
    let headers = headers.into_iter().filter_map(|(name, value)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?)) // what is no header is left out
    });
    let headers: HeaderMap = headers.collect();
    let limit = if status == StatusCode::OK { limit } else { MAX_ERROR_BODY };
    // What the pod says that will come, as of a plain answer.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let limit = length.unwrap_or(limit).min(limit);
    let room = memory.take(limit).await;
    Ok(Begun { status, headers, body: Vec::new(), limit, room })
}

impl Begun {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if (self.body.len() + bytes.len()) as u64 > self.limit {
            return Err(too_long(self.limit));
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    /// Gives back the memory that it did not need.
    fn end(self) -> Answer {
        let Self { status, headers, mut body, limit: _, mut room } = self;
        body.shrink_to_fit();
        let rest = room.num_permits().saturating_sub(body.len().div_ceil(1024));
        drop(room.split(rest));
        Answer { status, headers, body: counted(body, room) }
    }
}

fn garbled(error: &FrameError) -> Fault {
    Fault::Failed(format!("the pod's answer can't be read: {error}"))
}

fn out_of_order(what: &str) -> Fault {
    Fault::Failed(format!("the pod's answer can't be read: {what}"))
}
