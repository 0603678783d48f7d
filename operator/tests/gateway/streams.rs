//! Events reach the client as a pod makes them, each once, whichever pods it takes.

use easel_api::error::ApiError;
use easel_api::images::StreamEvent;
use reqwest::Response;
use serde_json::{Value, json};

use crate::fake_pod::{Act, FakePod, Say};
use crate::stage::{Stage, error_of, soon};

const OK: &str = "easel_gateway_requests_total{model=\"demo/tiny\",outcome=\"ok\"}";

fn wish() -> Value {
    json!({"model": "tiny", "prompt": "a lighthouse", "stream": true, "partial_images": 3, "seed": 7})
}

struct Stream {
    response: Response,
    read: String,
}

impl Stream {
    async fn begin(stage: &Stage, wish: &Value) -> Self {
        let response = soon(stage.draw(wish).send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, read: String::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                let (event, rest) = (serde_json::from_str(data).unwrap(), rest.len());
                self.read.drain(..self.read.len() - rest);
                return Some(event);
            }
            let chunk = soon(self.response.chunk()).await.unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn all(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// Seed, and index if it is a preview.
fn keys(events: &[Value]) -> Vec<(u64, Option<u64>)> {
    events.iter().map(|event| (event["seed"].as_u64().unwrap(), event["partial_image_index"].as_u64())).collect()
}

#[tokio::test]
async fn an_event_is_passed_on_while_the_pod_still_draws() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Stream(vec![Say::Preview(0, 0), Say::Wait, Say::Picture(0)])]).await;
    let mut stream = Stream::begin(&stage, &wish()).await;
    assert_eq!(stream.response.headers()["x-easel-model"], "demo/tiny");
    assert_eq!(stream.response.headers()["x-easel-revision"], "sha256:beef");
    assert_eq!(stream.next().await.unwrap()["partial_image_index"], 0);
    stage.metric("easel_gateway_in_flight", 1).await;
    assert!(!stage.metrics().contains(OK), "it has not ended");
    pod.release();
    let last = stream.next().await.unwrap();
    assert_eq!(last["type"], "image_generation.completed");
    let trailers = &last["trailers"];
    assert_eq!((&trailers["x-easel-pool"], &trailers["x-easel-attempts"]), (&json!("cpu"), &json!("1")));
    assert_eq!(trailers["x-easel-model-digest"], "sha256:beef");
    assert!(trailers["x-easel-cost-usd"].as_str().unwrap().parse::<f64>().unwrap() > 0.0, "{trailers}");
    let timing = trailers["server-timing"].as_str().unwrap();
    assert!(timing.starts_with("queue;dur=") && timing.ends_with(", steps;dur=7"), "{timing}");
    assert_eq!(stream.next().await, None);
    stage.metric(OK, 1).await;
    stage.metric("easel_gateway_in_flight", 0).await;
    assert_eq!(
        pod.calls()[0].body,
        json!({"model": "demo/tiny", "prompt": "a lighthouse", "stream": true,
        "partial_images": 3, "seed": 7})
    );
}

#[tokio::test]
async fn a_pod_that_dies_is_followed_by_another_and_no_event_comes_twice() {
    let stage = Stage::new(&[]).await;
    let wish = json!({"prompt": "a", "stream": true, "partial_images": 2, "n": 2, "seed": 7});
    let dies = vec![Say::Preview(0, 0), Say::Preview(1, 0), Say::Preview(0, 1), Say::Picture(0), Say::Wait, Say::Die];
    let draws = vec![
        Say::Preview(0, 0),
        Say::Preview(1, 0),
        Say::Preview(0, 1),
        Say::Preview(1, 1),
        Say::Picture(0),
        Say::Picture(1),
    ];
    let (first, second) =
        (stage.add_pod("a", [Act::Stream(dies)]).await, stage.add_pod("b", [Act::Stream(draws)]).await);
    let mut stream = Stream::begin(&stage, &wish).await;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(stream.next().await.unwrap());
    }
    first.release();
    events.extend(stream.all().await);
    let expected = [(7, Some(0)), (8, Some(0)), (7, Some(1)), (7, None), (8, Some(1)), (8, None)];
    assert_eq!(keys(&events), expected);
    assert_eq!(first.calls()[0].body, second.calls()[0].body, "the same request");
    assert_eq!(events[5]["trailers"]["x-easel-attempts"], "2");
    stage.metric("easel_gateway_retries_total{reason=\"lost\"}", 1).await;
    stage.metric(OK, 1).await;
}

#[tokio::test]
async fn half_an_event_is_never_passed_on() {
    let stage = Stage::new(&[]).await;
    let half = Say::Bytes(b"event: image_generation.partial_image\ndata: {\"type\":".to_vec());
    let dying = stage.add_pod("a", [Act::Stream(vec![Say::Preview(0, 0), half, Say::Wait, Say::Die])]).await;
    let pod = stage.add_pod("b", [Act::Stream(vec![Say::Preview(0, 0), Say::Preview(0, 1), Say::Picture(0)])]).await;
    let mut stream = Stream::begin(&stage, &wish()).await;
    let first = stream.next().await.unwrap();
    dying.release();
    let events = [vec![first], stream.all().await].concat();
    assert_eq!(keys(&events), [(7, Some(0)), (7, Some(1)), (7, None)]);
    assert_eq!((dying.calls().len(), pod.calls().len()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_ends_before_its_last_picture_is_a_lost_pod() {
    let stage = Stage::new(&[]).await;
    let _first = stage.add_pod("a", [Act::Stream(vec![Say::Preview(0, 0)])]).await;
    let _second = stage.add_pod("b", [Act::Stream(vec![Say::Picture(0)])]).await;
    let events = Stream::begin(&stage, &wish()).await.all().await;
    assert_eq!(keys(&events), [(7, Some(0)), (7, None)]);
    stage.metric("easel_gateway_retries_total{reason=\"lost\"}", 1).await;
}

#[tokio::test]
async fn what_fails_before_the_first_event_has_its_status() {
    let stage = Stage::new(&[]).await;
    let refusal = ApiError::invalid("prompt", "too_many_tokens", "the prompt has 80 tokens; at most 77");
    let _pod = stage.add_pod("a", [Act::Say(refusal)]).await;
    let (status, error) = error_of(soon(stage.draw(&wish()).send()).await.unwrap()).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("prompt")));
}

#[tokio::test]
async fn what_fails_later_is_an_event_with_the_same_envelope_and_counts_as_a_failure() {
    let stage = Stage::new(&[]).await;
    let dies = || Act::Stream(vec![Say::Preview(0, 0), Say::Wait, Say::Die]);
    let pods = [stage.add_pod("a", [dies()]).await, stage.add_pod("b", [dies()]).await, stage.add_pod("c", []).await];
    let mut stream = Stream::begin(&stage, &wish()).await;
    assert_eq!(stream.next().await.unwrap()["partial_image_index"], 0);
    pods.iter().for_each(FakePod::release);
    let error = &stream.next().await.unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("request_quarantined"), &json!("server_error")));
    assert_eq!(stream.next().await, None);
    assert_eq!(pods.map(|pod| pod.calls().len()), [1, 1, 0]);
    stage.metric("easel_gateway_requests_total{model=\"demo/tiny\",outcome=\"failed\"}", 1).await;
}

#[tokio::test]
async fn an_error_that_the_pod_tells_in_its_stream_is_one_of_the_pod_or_of_the_client() {
    let said = |error: &ApiError| Say::Bytes(StreamEvent::failed(error).to_wire().unwrap());
    let stage = Stage::new(&[]).await;
    let fails = Act::Stream(vec![Say::Preview(0, 0), said(&ApiError::internal("out of memory"))]);
    let _first = stage.add_pod("a", [fails]).await;
    let second = stage.add_pod("b", [Act::Stream(vec![Say::Picture(0)])]).await;
    assert_eq!(keys(&Stream::begin(&stage, &wish()).await.all().await), [(7, Some(0)), (7, None)]);
    assert_eq!(second.calls().len(), 1);

    let stage = Stage::new(&[]).await;
    let cancelled = ApiError { code: Some("request_cancelled".into()), ..ApiError::stale("the request was cancelled") };
    let pod = stage.add_pod("a", [Act::Stream(vec![Say::Preview(0, 0), said(&cancelled)])]).await;
    let events = Stream::begin(&stage, &wish()).await.all().await;
    assert_eq!(events[1]["error"]["code"], "request_cancelled");
    assert_eq!(pod.calls().len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_frees_its_pod() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Stream(vec![Say::Preview(0, 0), Say::Wait])]).await;
    let mut stream = Stream::begin(&stage, &wish()).await;
    assert!(stream.next().await.is_some());
    drop(stream);
    pod.hung_up(1).await;
    stage.metric("easel_gateway_requests_total{model=\"demo/tiny\",outcome=\"cancelled\"}", 1).await;
    stage.metric("easel_gateway_in_flight", 0).await;
}

#[tokio::test]
async fn an_event_longer_than_any_picture_is_not_read_to_its_end() {
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", [Act::Stream(vec![Say::Bytes(vec![b'x'; 4 << 20])])]).await;
    let (status, error) = error_of(soon(stage.draw(&wish()).send()).await.unwrap()).await;
    assert_eq!(status, 502);
    assert!(error["message"].as_str().unwrap().contains("longer than"), "{error}");
}

#[tokio::test]
async fn streams_between_two_events_hold_no_memory() {
    // An event of this model may take 1 MiB, so there is memory for 64 at a time.
    let stage = Stage::new(&["--response-memory-mib", "64"]).await;
    let script = || Act::Stream(vec![Say::Preview(0, 0), Say::Wait, Say::Picture(0)]);
    let pod = stage.add_pod("a", std::iter::repeat_with(script).take(80)).await;
    stage.edit_endpoint("a", |endpoint| endpoint.queue_limit = 100);
    let mut streams = Vec::new();
    for _ in 0..80 {
        let mut stream = Stream::begin(&stage, &wish()).await;
        assert!(stream.next().await.is_some());
        streams.push(stream);
    }
    (0..80).for_each(|_| pod.release());
    for stream in streams {
        assert_eq!(stream.all().await.len(), 1);
    }
}
