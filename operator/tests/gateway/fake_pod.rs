//! A pod that answers as its script says, and draws when the script is at its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use easel_api::engine::HANDOVER_PATH;
use easel_api::error::ApiError;
use easel_api::frames::{Decoder, FRAMES_MEDIA_TYPE, Frame, Head, Snapshot};
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::stage::soon;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Draw,
    /// Draws when [`FakePod::release`] is called.
    Hold,
    Say(ApiError),
    /// Draws, with a word about the prompt.
    Warn(&'static str),
    /// 200 with this many bytes.
    Write(usize),
    /// Breaks the connection after the request, as a killed process does.
    Die,
    /// Breaks it in the middle of the answer.
    DieMidAnswer,
    /// 200 with events.
    Stream(Vec<Say>),
    /// Answers in frames.
    Frames(Vec<Frame>, Ending),
    /// Draws, and answers in frames.
    DrawFramed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Whole,
    Broken,
}

/// What a stream consists of.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// Of the picture with the request's seed and so many more.
    Preview(u64, u32),
    Picture(u64),
    Bytes(Vec<u8>),
    /// Until [`FakePod::release`] is called.
    Wait,
    /// Breaks the connection.
    Die,
}

#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Of a hand-over, the body of what is handed over.
    pub(crate) body: Value,
    /// What was handed over: the request's path and its snapshots.
    pub(crate) handed: Option<(String, Vec<Snapshot>)>,
}

/// Ends, as if it were killed, when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct FakePod {
    pub(crate) port: u16,
    script: Arc<Mutex<VecDeque<Act>>>,
    calls: Arc<watch::Sender<Vec<Call>>>,
    hung_up: Arc<watch::Sender<usize>>,
    released: Arc<Semaphore>,
    tls: Arc<ArcSwap<ServerConfig>>,
    _running: Arc<DropGuard>,
}

#[derive(Clone)]
struct Connection(CancellationToken);

/// Counts up if its request is dropped before it is answered.
struct Unanswered(Option<Arc<watch::Sender<usize>>>);

impl FakePod {
    pub(crate) async fn start(tls: Arc<ServerConfig>, script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let running = CancellationToken::new();
        let pod = Self {
            port: listener.local_addr().unwrap().port(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            calls: Arc::new(watch::Sender::new(Vec::new())),
            hung_up: Arc::new(watch::Sender::new(0)),
            released: Arc::new(Semaphore::new(0)),
            tls: Arc::new(ArcSwap::new(tls)),
            _running: Arc::new(running.clone().drop_guard()),
        };
        let state = Inner {
            script: pod.script.clone(),
            calls: pod.calls.clone(),
            hung_up: pod.hung_up.clone(),
            released: pod.released.clone(),
        };
        tokio::spawn(running.run_until_cancelled_owned(accept(listener, pod.tls.clone(), state)));
        pod
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Until it has been asked so often.
    pub(crate) async fn called(&self, times: usize) -> Vec<Call> {
        let mut calls = self.calls.subscribe();
        soon(async { calls.wait_for(|calls| calls.len() >= times).await.unwrap().clone() }).await
    }

    pub(crate) async fn hung_up(&self, times: usize) {
        let mut hung_up = self.hung_up.subscribe();
        soon(async { drop(hung_up.wait_for(|count| *count >= times).await.unwrap()) }).await;
    }

    /// New connections are served so.
    pub(crate) fn serves_with(&self, tls: Arc<ServerConfig>) {
        self.tls.store(tls);
    }

    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }
}

/// Without the guard, so that the pod ends with its last handle.
#[derive(Clone)]
struct Inner {
    script: Arc<Mutex<VecDeque<Act>>>,
    calls: Arc<watch::Sender<Vec<Call>>>,
    hung_up: Arc<watch::Sender<usize>>,
    released: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, tls: Arc<ArcSwap<ServerConfig>>, state: Inner) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, TlsAcceptor::from(tls.load_full()), state.clone()));
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Inner) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let cut = CancellationToken::new();
    let router = Router::new().fallback(act).layer(Extension(Connection(cut.clone())));
    let router = router.layer(DefaultBodyLimit::disable()).with_state(state);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = cut.run_until_cancelled(connection).await;
}

async fn act(
    State(state): State<Inner>,
    Extension(connection): Extension<Connection>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut unanswered = Unanswered(Some(state.hung_up.clone()));
    let (body, handed) = read(&uri, &body);
    let act = state.script.lock().unwrap().pop_front().unwrap_or(Act::Draw);
    let path = uri.path().to_owned();
    state.calls.send_modify(|calls| calls.push(Call { path, headers, body: body.clone(), handed }));
    let response = match act {
        Act::Draw => draw(&body),
        Act::Hold => {
            state.released.acquire().await.unwrap().forget();
            draw(&body)
        }
        Act::Say(error) => {
            let status = StatusCode::from_u16(error.status).unwrap();
            (status, axum::Json(error.envelope())).into_response()
        }
        Act::Warn(warning) => ([("x-easel-warning", warning)], draw(&body)).into_response(),
        Act::Write(bytes) => vec![b'x'; bytes].into_response(),
        Act::Die => {
            connection.0.cancel();
            std::future::pending().await
        }
        Act::DieMidAnswer => {
            let broken = [Ok("{\"created\":"), Err(std::io::Error::other("killed"))];
            Response::new(Body::from_stream(stream::iter(broken)))
        }
        Act::Frames(frames, ending) => in_frames(&frames, ending),
        Act::DrawFramed => {
            let headers = BTreeMap::from([("x-easel-warning".to_owned(), "framed".to_owned())]);
            let head = Frame::Head(Head { status: 200, headers });
            let drawn = Frame::Body(picture(&body).to_string().into());
            in_frames(&[head, drawn, Frame::End], Ending::Whole)
        }
        Act::Stream(says) => {
            let unanswered = Unanswered(unanswered.0.take());
            return say(says, body["seed"].as_u64().unwrap(), state.released, unanswered);
        }
    };
    unanswered.0 = None;
    response
}

fn say(says: Vec<Say>, seed: u64, released: Arc<Semaphore>, unanswered: Unanswered) -> Response {
    let state = (says.into_iter(), released, unanswered);
    let events = stream::unfold(state, move |(mut says, released, mut unanswered)| async move {
        let said = match says.next() {
            Some(Say::Wait) => {
                released.acquire().await.unwrap().forget();
                Ok(Bytes::new())
            }
            Some(Say::Preview(more, index)) => Ok(event(seed + more, Some(index)).into()),
            Some(Say::Picture(more)) => Ok(event(seed + more, None).into()),
            Some(Say::Bytes(bytes)) => Ok(bytes.into()),
            Some(Say::Die) => Err(std::io::Error::other("killed")),
            None => {
                drop(unanswered.0.take());
                return None;
            }
        };
        Some((said, (says, released, unanswered)))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

fn event(seed: u64, partial_image_index: Option<u32>) -> String {
    let kind = if partial_image_index.is_some() { "partial_image" } else { "completed" };
    let mut event = json!({"type": format!("image_generation.{kind}"), "b64_json": "iVBORw0KGgo=", "created_at": 1,
        "size": "64x64", "quality": "auto", "background": "opaque", "output_format": "png", "seed": seed});
    match partial_image_index {
        Some(index) => event["partial_image_index"] = json!(index),
        None => event["trailers"] = json!({"server-timing": "steps;dur=7", "x-easel-model-digest": "sha256:beef"}),
    }
    format!("event: image_generation.{kind}\ndata: {event}\n\n")
}

fn read(uri: &Uri, body: &Bytes) -> (Value, Option<(String, Vec<Snapshot>)>) {
    if uri.path() != HANDOVER_PATH {
        return (serde_json::from_slice(body).unwrap(), None);
    }
    let (mut decoder, mut path, mut inner, mut snapshots) = (Decoder::default(), None, Vec::new(), Vec::new());
    decoder.push(body);
    loop {
        match decoder.next_frame().unwrap().expect("the hand-over has an end") {
            Frame::Request(request) => path = Some(request.path),
            Frame::Body(bytes) => inner.extend_from_slice(&bytes),
            Frame::Snapshot(snapshot) => snapshots.push(snapshot),
            Frame::End => return (serde_json::from_slice(&inner).unwrap(), Some((path.unwrap(), snapshots))),
            frame @ (Frame::Head(_) | Frame::Moved) => panic!("{frame:?} in a hand-over"),
        }
    }
}

fn in_frames(frames: &[Frame], ending: Ending) -> Response {
    let pieces: Vec<_> = frames.iter().map(|frame| Ok(frame.encode())).collect();
    let end = stream::once(async move {
        tokio::task::yield_now().await; // what is written so far is sent meanwhile
        match ending {
            Ending::Whole => Ok(Bytes::new()),
            Ending::Broken => Err(std::io::Error::other("killed")),
        }
    });
    let body = Body::from_stream(stream::iter(pieces).chain(end));
    ([(CONTENT_TYPE, FRAMES_MEDIA_TYPE)], body).into_response()
}

fn draw(request: &Value) -> Response {
    ([("server-timing", "steps;dur=7")], axum::Json(picture(request))).into_response()
}

fn picture(request: &Value) -> Value {
    let picture = json!({"b64_json": "iVBORw0KGgo=", "seed": request["seed"]});
    json!({"created": 1, "data": [picture], "background": "opaque", "output_format": "png", "size": "64x64",
        "quality": "auto", "usage": {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0,
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0}}})
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(hung_up) = self.0.take() {
            hung_up.send_modify(|count| *count += 1);
        }
    }
}
