//! A pod that goes gives what it has begun to whoever asked, and a pod that gets it goes on from there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use axum::body::{Body, Bytes};
use easel_api::engine::HANDOVER_PATH;
use easel_api::frames::{Decoder, FRAMES_MEDIA_TYPE, Frame, Request as Handed, SNAPSHOT_STEPS_HEADER, Snapshot};
use easel_api::identity::Identity;
use easel_api::images::GENERATIONS_PATH;
use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::finishes_before_it_stops::Binary;
use crate::support::{
    Authority, Client, MODEL, World, checkpoint, desired, eventually, generation, is_ready, plain, prepare,
};

const EVERY: u32 = 5;
const STEPS: u64 = 40;

/// How one pod has answered.
#[derive(Debug)]
enum Heard {
    Drawn(Value),
    Moved,
    /// The connection broke.
    Lost,
}

/// Holds one request as the gateway does.
struct Holder {
    body: Value,
    snapshots: BTreeMap<u32, Bytes>,
    /// Counts up with the first snapshot.
    seen: Arc<AtomicUsize>,
}

impl Holder {
    fn new(body: &Value) -> Self {
        Self { body: body.clone(), snapshots: BTreeMap::new(), seen: Arc::default() }
    }

    async fn request(&self, every: u32) -> Request<Body> {
        let mut request = generation(&self.body);
        if !self.snapshots.is_empty() {
            let (path, content_type) = (GENERATIONS_PATH.into(), "application/json".into());
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let frames = [Frame::Request(Handed { path, content_type }), Frame::Body(body)];
            let snapshot = |(picture, bytes): (&u32, &Bytes)| Snapshot { picture: *picture, bytes: bytes.clone() };
            let snapshots = self.snapshots.iter().map(snapshot).map(Frame::Snapshot);
            let frames: Vec<u8> =
                frames.into_iter().chain(snapshots).chain([Frame::End]).flat_map(|f| f.encode()).collect();
            request = Request::from_parts(parts, frames.into());
            *request.uri_mut() = HANDOVER_PATH.parse().unwrap();
            request.headers_mut().insert("content-type", FRAMES_MEDIA_TYPE.parse().unwrap());
        }
        request.headers_mut().insert(SNAPSHOT_STEPS_HEADER, every.into());
        request
    }

    /// Reads to the end of the answer, and keeps the newest snapshots.
    async fn ask(&mut self, pod: &Client, every: u32) -> Heard {
        let Ok(response) = pod.try_send(self.request(every).await).await else { return Heard::Lost };
        let (parts, mut body) = response.into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        if parts.headers["content-type"] != FRAMES_MEDIA_TYPE {
            let Ok(body) = body.collect().await else { return Heard::Lost };
            return Heard::Drawn(serde_json::from_slice(&body.to_bytes()).unwrap());
        }
        let (mut decoder, mut answer) = (Decoder::default(), Vec::new());
        loop {
            match decoder.next_frame().unwrap() {
                Some(Frame::Snapshot(Snapshot { picture, bytes })) => {
                    if self.snapshots.insert(picture, bytes).is_none() {
                        self.seen.fetch_add(1, SeqCst);
                    }
                }
                Some(Frame::Head(head)) => {
                    assert_eq!(head.status, 200);
                    assert!(head.headers.contains_key("x-easel-model-digest"), "{head:?}");
                }
                Some(Frame::Body(bytes)) => answer.extend_from_slice(&bytes),
                Some(Frame::Moved) => return Heard::Moved,
                Some(Frame::End) => return Heard::Drawn(serde_json::from_slice(&answer).unwrap()),
                Some(frame @ Frame::Request(_)) => panic!("{frame:?} in an answer"),
                None => match body.frame().await {
                    Some(Ok(frame)) => decoder.push(frame.data_ref().map_or(&[][..], |data| data)),
                    Some(Err(_)) | None => return Heard::Lost,
                },
            }
        }
    }
}

fn picture(answer: &Value) -> Vec<Value> {
    answer["data"].as_array().unwrap().clone()
}

/// A number of a pod's metrics, summed over labels; 0 when it is not there.
fn total(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with([' ', '{']));
    values.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test]
async fn a_picture_goes_on_in_another_pod_and_becomes_what_it_would_have_become() {
    let (first, second) = (World::ready(&["--fake-step-ms=640"]).await, World::ready(&[]).await);
    let body = json!({"prompt": "a cat", "seed": 7, "steps": 400, "n": 2});
    let mut holder = Holder::new(&body);
    let (gateway, seen) = (first.gateway.clone(), holder.seen.clone());
    let asking = tokio::spawn(async move { (holder.ask(&gateway, EVERY).await, holder) });
    eventually("both pictures have a snapshot", async || seen.load(SeqCst) == 2).await;
    assert!(first.pod.drain().await, "nothing is cut off, for it went elsewhere");
    let (heard, mut holder) = asking.await.unwrap();
    assert!(matches!(heard, Heard::Moved), "{heard:?}");
    let Heard::Drawn(moved) = holder.ask(&second.gateway, EVERY).await else { panic!("the second pod does not go") };
    let metrics = second.metrics().await;
    assert_eq!(total(&metrics, "easel_inference_resumed_total"), 2);
    let behind = total(&metrics, "easel_inference_resumed_steps_total");
    assert!(behind >= 2 * u64::from(EVERY), "{behind}");
    let whole = second.gateway.generate(body).await.body;
    assert_eq!(picture(&moved), picture(&whole));
    assert_eq!(moved["usage"], whole["usage"]);
}

#[tokio::test]
async fn a_caller_that_reads_no_frames_is_answered_as_ever() {
    let world = World::ready(&[]).await;
    let answer = world.gateway.generate(json!({"seed": 7, "steps": 20})).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    let mut holder = Holder::new(&json!({"seed": 7, "steps": 20}));
    let Heard::Drawn(framed) = holder.ask(&world.gateway, 1).await else { panic!("the pod does not go") };
    assert_eq!(picture(&framed), picture(&answer.body));
}

#[tokio::test]
async fn snapshots_that_are_of_something_else_are_not_gone_on_from() {
    let world = World::ready(&[]).await;
    let body = json!({"prompt": "a cat", "seed": 7});
    let mut holder = Holder::new(&body);
    holder.snapshots.insert(0, "not a snapshot".into());
    let Heard::Drawn(drawn) = holder.ask(&world.gateway, 0).await else { panic!("the pod does not go") };
    assert_eq!(picture(&drawn), picture(&world.gateway.generate(body).await.body));
    assert_eq!(total(&world.metrics().await, "easel_inference_snapshots_refused_total"), 1);
}

#[tokio::test]
async fn a_hand_over_that_can_not_be_read_is_refused_with_the_reason() {
    let world = World::ready(&[]).await;
    let hand = async |body: &[u8], kind: &str| {
        let request = Request::post(HANDOVER_PATH).header("content-type", kind).body(body.to_vec().into()).unwrap();
        world.gateway.send(request).await
    };
    assert_eq!(hand(b"{}", "application/json").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let other = Frame::Request(Handed { path: "/v1/audio/speech".into(), content_type: "application/json".into() });
    let unknown = [other.encode(), Frame::End.encode()].concat();
    assert_eq!(hand(&unknown, FRAMES_MEDIA_TYPE).await.status, StatusCode::NOT_FOUND);
    for garbled in [vec![], vec![9; 20], Frame::End.encode().to_vec(), Frame::Moved.encode().to_vec()] {
        let answer = hand(&garbled, FRAMES_MEDIA_TYPE).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{garbled:?}");
        assert!(answer.body["error"]["message"].as_str().unwrap().contains("the hand-over can't be read"));
    }
}

/// Two processes, and thirty requests that the first is busy with.
struct Move {
    first: Binary,
    other: Binary,
    second: Client,
    asking: Vec<tokio::task::JoinHandle<(Heard, Holder)>>,
    _folder: tempfile::TempDir,
}

const REQUESTS: u64 = 30;

fn body(index: u64) -> Value {
    json!({"prompt": format!("picture {index}"), "seed": index, "steps": STEPS})
}

async fn pod(authority: &Authority, folder: &Path) -> (Binary, Client) {
    let (binary, address) = Binary::start(folder, &[]);
    let client = |identity: Identity| authority.client(authority, Some(&identity.uri()), address);
    let operator = client(Identity::Operator);
    operator.hold(1, vec![desired(MODEL, checkpoint(&folder.join("model"), "a"))]).await;
    operator.report_until(|report| is_ready(report, MODEL)).await;
    (binary, client(Identity::Gateway))
}

/// Until some of them have come far enough to lose something.
async fn under_way() -> Move {
    let (authority, folder) = prepare();
    let (first, asked) = pod(&authority, folder.path()).await;
    let (other, second) = pod(&authority, folder.path()).await;
    let seen = Arc::<AtomicUsize>::default();
    let ask = |index| {
        let (mut holder, asked) = (Holder { seen: seen.clone(), ..Holder::new(&body(index)) }, asked.clone());
        tokio::spawn(async move { (holder.ask(&asked, EVERY).await, holder) })
    };
    let asking = (0..REQUESTS).map(ask).collect();
    eventually("snapshots come", async || seen.load(SeqCst) >= 6).await;
    Move { first, other, second, asking, _folder: folder }
}

/// Those that were drawn before, and all pictures in the end.
async fn go_on(asking: Vec<tokio::task::JoinHandle<(Heard, Holder)>>, second: &Client) -> (u64, Vec<Vec<Value>>) {
    let mut drawn_before = 0;
    let mut going_on = Vec::new();
    for asked in asking {
        let (heard, mut holder) = asked.await.unwrap();
        let second = second.clone();
        going_on.push(tokio::spawn(async move {
            match heard {
                Heard::Drawn(answer) => (1, picture(&answer)),
                Heard::Moved | Heard::Lost => match holder.ask(&second, EVERY).await {
                    Heard::Drawn(answer) => (0, picture(&answer)),
                    heard => panic!("{heard:?} by the second pod"),
                },
            }
        }));
    }
    let mut pictures = Vec::new();
    for one in going_on {
        let (before, picture) = one.await.unwrap();
        drawn_before += before;
        pictures.push(picture);
    }
    (drawn_before, pictures)
}

/// Drawn from the beginning, by one pod.
async fn assert_as_uninterrupted(pictures: &[Vec<Value>], pod: &Client) {
    let ask = async |index| match Holder::new(&body(index)).ask(pod, 0).await {
        Heard::Drawn(answer) => picture(&answer),
        heard => panic!("{heard:?}"),
    };
    let whole = futures::future::join_all((0..REQUESTS).map(ask)).await;
    assert_eq!(*pictures, whole);
}

#[tokio::test]
async fn sigterm_with_thirty_requests_under_way_loses_none_and_takes_no_step_twice() {
    let Move { first, other, second, asking, _folder } = under_way().await;
    first.terminate();
    let ended = tokio::spawn(first.ended());
    let (drawn_before, pictures) = go_on(asking, &second).await;
    assert_eq!(ended.await.unwrap(), Some(0));
    let metrics = plain(other.metrics, "/metrics").await.1;
    assert!(total(&metrics, "easel_inference_resumed_total") > 0, "{metrics}");
    // What the first has taken and the second has not is what the metric says of the second.
    let resumed = total(&metrics, "easel_inference_resumed_steps_total");
    assert_eq!(steps(&metrics) + resumed, (REQUESTS - drawn_before) * STEPS);
    assert_as_uninterrupted(&pictures, &second).await;
}

/// Pictures' steps: model calls by the number of pictures in each. Without the one of the warm-up.
fn steps(metrics: &str) -> u64 {
    let name = "easel_inference_step_seconds_count{batch=\"";
    let of = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix(name)?;
        Some(rest.split('"').next()?.parse::<u64>().ok()? * rest.rsplit(' ').next()?.parse::<u64>().ok()?)
    };
    metrics.lines().filter_map(of).sum()
}

#[tokio::test]
async fn kill_9_loses_at_most_the_steps_since_the_last_snapshot_of_each_picture() {
    let Move { mut first, other, second, asking, _folder } = under_way().await;
    let before = plain(first.metrics, "/metrics").await.1;
    first.kill();
    let (drawn_before, pictures) = go_on(asking, &second).await;
    let after = plain(other.metrics, "/metrics").await.1;
    let kept = total(&after, "easel_inference_resumed_steps_total");
    let lost = steps(&before).saturating_sub(drawn_before * STEPS + kept);
    let running = total(&before, "easel_inference_running");
    println!("{drawn_before} drawn before; {kept} steps kept, {lost} lost of {running} pictures");
    assert!(kept > 0 && running > 0);
    assert!(lost <= running * u64::from(EVERY), "{lost} steps of {running} pictures");
    assert_as_uninterrupted(&pictures, &second).await;
}
