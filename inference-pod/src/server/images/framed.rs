//! The answer in frames, for a caller that can take the request elsewhere: snapshots as the engine makes them, then the
//! answer as it would be without, or that the request has to move. Knows the order of frames, not what is in them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use easel_api::error::ApiError;
use easel_api::frames::{FRAMES_MEDIA_TYPE, Frame, Head, Snapshot, body_frames};
use futures::stream;
use http_body_util::BodyExt;

use super::render::Rendering;
use super::{Counted, Wish, refuse, written};
use crate::drain::InFlight;
use crate::engine::{DrawError, Drawn, SnapshotReceiver, snapshots};
use crate::server::Shared;
use crate::server::respond::Refused;

type Drawing = Pin<Box<dyn Future<Output = Result<Drawn, DrawError>> + Send>>;

/// One request. Dropping it cancels what is still being drawn.
struct Frames {
    snapshots: SnapshotReceiver,
    drawing: Option<Drawing>,
    rendering: Rendering,
    counted: Counted,
    in_flight: Option<InFlight>,
    /// What is left to say once nothing is drawn any more.
    last: VecDeque<Frame>,
}

/// Until the first frame has to go out, the answer may still be a plain one.
enum Step {
    Snapshot(Frame),
    Answer(Result<Response, ApiError>),
    Moved,
}

/// Plain if it is known before any snapshot is, in frames otherwise.
pub(super) async fn answer(
    shared: &Shared,
    wish: Wish,
    every: u32,
    counted: &mut Counted,
    in_flight: InFlight,
) -> Result<Response, ApiError> {
    let rendering = wish.rendering(shared);
    let (to, snapshots) = snapshots(every);
    let (engine, request) = (shared.engine.clone(), wish.request(None, Some(to)));
    let drawing: Drawing = Box::pin(async move { engine.draw(request).await });
    let (drawing, in_flight, last) = (Some(drawing), Some(in_flight), VecDeque::new());
    let mut frames = Frames { snapshots, drawing, rendering, counted: counted.take(), in_flight, last };
    let first = match frames.step().await {
        Step::Snapshot(frame) => frame,
        Step::Answer(answer) => {
            *counted = frames.counted.take();
            return answer;
        }
        Step::Moved => {
            frames.counted.moved();
            Frame::Moved
        }
    };
    let rest = stream::unfold(frames, |mut frames| async move { Some((frames.next().await?, frames)) });
    let frames = stream::StreamExt::chain(stream::iter([first]), rest);
    let bytes = stream::StreamExt::map(frames, |frame| Ok::<_, Infallible>(frame.encode()));
    Ok(([(header::CONTENT_TYPE, FRAMES_MEDIA_TYPE)], Body::from_stream(bytes)).into_response())
}

impl Frames {
    async fn step(&mut self) -> Step {
        let Some(drawing) = &mut self.drawing else { return Step::Moved };
        let drawn = tokio::select! {
            drawn = drawing => drawn,
            (picture, bytes) = self.snapshots.next() => return Step::Snapshot(snapshot(picture, bytes)),
        };
        self.drawing = None;
        let in_flight = self.in_flight.take();
        match (drawn, in_flight) {
            (Ok(drawn), Some(in_flight)) => Step::Answer(written(self.rendering.clone(), drawn, in_flight).await),
            (Ok(_), None) => Step::Answer(Err(ApiError::internal("a request was drawn twice"))),
            (Err(DrawError::Moved), in_flight) => {
                self.in_flight = in_flight; // until the last frame is out
                self.moved();
                match self.last.pop_front() {
                    Some(frame) => Step::Snapshot(frame),
                    None => Step::Moved,
                }
            }
            (Err(error), _) => Step::Answer(Err(refuse(&self.rendering.model, error))),
        }
    }

    /// The engine sends the newest snapshots before it says that the request moves.
    fn moved(&mut self) {
        while let Some((picture, bytes)) = self.snapshots.take() {
            self.last.push_back(snapshot(picture, bytes));
        }
        if !self.last.is_empty() {
            self.counted.moved();
            self.last.push_back(Frame::Moved);
        }
    }

    /// `None` after the last frame.
    async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.last.pop_front() {
            return Some(frame);
        }
        self.drawing.as_ref()?;
        match self.step().await {
            Step::Snapshot(frame) => return Some(frame),
            Step::Moved => {
                self.counted.moved();
                return Some(Frame::Moved);
            }
            Step::Answer(answer) => {
                match &answer {
                    Ok(_) => self.counted.drawn(),
                    Err(error) => self.counted.failed(error),
                }
                let response = answer.unwrap_or_else(|error| Refused(error).into_response());
                self.last = whole(response).await;
            }
        }
        self.last.pop_front()
    }
}

fn snapshot(picture: u32, bytes: Bytes) -> Frame {
    Frame::Snapshot(Snapshot { picture, bytes })
}

async fn whole(response: Response) -> VecDeque<Frame> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(); // it is in memory
    let mut headers = text(&parts.headers);
    headers.insert(header::CONTENT_LENGTH.as_str().into(), body.len().to_string());
    let head = Frame::Head(Head { status: parts.status.as_u16(), headers });
    std::iter::once(head).chain(body_frames(&body)).chain([Frame::End]).collect()
}

fn text(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}
