//! Requests name adapters of their model: each picture is drawn with its own, and none of them unreadies the model.

use axum::body::Body;
use easel_api::engine::{
    AdapterState, Checkpoint, DesiredAdapter, DesiredModel, REQUESTS_PATH, RefusalReason, Report, Source,
};
use easel_checkpoints::digest::Listing;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, MODEL, World, generation, is_ready};

fn adapter(world: &World, name: &str, content: &[u8]) -> DesiredAdapter {
    let folder = world.folder.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("pytorch_lora_weights.safetensors"), content).unwrap();
    let digest = Listing::read(&folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
    let source = Source::Folder { path: folder.to_str().unwrap().to_owned() };
    DesiredAdapter { name: name.into(), checkpoint: Checkpoint { source, digest, signature: None }, access: None }
}

async fn world(flags: &[&str], adapters: &[(&str, &[u8])]) -> (World, DesiredModel) {
    let world = World::start(flags).await;
    let adapters = adapters.iter().map(|(name, content)| adapter(&world, name, content)).collect();
    let model = DesiredModel { adapters, ..world.model(MODEL) };
    assert_eq!(world.operator.hold(1, vec![model.clone()]).await.status, StatusCode::OK);
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    (world, model)
}

fn with(adapters: &Value) -> Request<Body> {
    generation(&json!({"seed": 1, "adapters": adapters}))
}

async fn picture(world: &World, adapters: &Value) -> String {
    let answer = world.gateway.send(with(adapters)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body["data"][0]["b64_json"].as_str().unwrap().to_owned()
}

fn message(answer: &Answer) -> &str {
    answer.body["error"]["message"].as_str().unwrap()
}

fn states(report: &Report) -> Vec<(String, AdapterState)> {
    report.models[0].adapters.iter().map(|adapter| (adapter.name.clone(), adapter.state.clone())).collect()
}

#[tokio::test]
async fn a_picture_is_drawn_with_the_adapters_that_its_request_names_and_their_weights() {
    let (world, _) = world(&[], &[("ink", b"1"), ("wax", b"22")]).await;
    let wishes = [
        json!([]),
        json!([{"name": "ink"}]),
        json!([{"name": "ink", "weight": 0.5}]),
        json!([{"name": "wax"}]),
        json!([{"name": "ink"}, {"name": "wax", "weight": -1}]),
    ];
    let mut pictures = Vec::new();
    for wish in &wishes {
        pictures.push(picture(&world, wish).await);
    }
    for (index, one) in pictures.iter().enumerate() {
        assert!(!pictures[..index].contains(one), "{} changes nothing", wishes[index]);
    }
    for (wish, before) in wishes.iter().zip(&pictures) {
        assert_eq!(picture(&world, wish).await, *before, "{wish}");
    }
    let report = world.operator.report_until(|_| true).await;
    let in_memory = |bytes| AdapterState::InMemory { bytes };
    assert_eq!(states(&report), [("ink".into(), in_memory(1)), ("wax".into(), in_memory(2))]);
    assert_eq!(report.memory.used_bytes, 1000 + 3);
}

#[tokio::test]
async fn an_adapter_that_the_model_does_not_have_is_refused_with_those_that_it_has() {
    let (world, _) = world(&[], &[("ink", b"1")]).await;
    let answer = world.gateway.send(with(&json!([{"name": "oil"}]))).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "adapter_not_resident"));
    assert!(message(&answer).contains("no adapter 'oil'; it has ink"), "{}", message(&answer));
}

#[tokio::test]
async fn adapters_share_a_budget_and_what_was_not_worn_for_the_longest_time_leaves() {
    let (world, _) = world(&["--adapter-bytes=10"], &[("a", b"4444"), ("b", b"444b"), ("c", b"444c")]).await;
    for name in ["a", "b", "a", "c"] {
        picture(&world, &json!([{"name": name}])).await;
    }
    let in_memory = |report: &Report| {
        let states = states(report).into_iter();
        states.filter(|(_, state)| matches!(state, AdapterState::InMemory { .. })).map(|(name, _)| name).collect()
    };
    let left: Vec<String> = in_memory(&world.operator.report_until(|_| true).await);
    assert_eq!(left, ["a", "c"]);
    let metrics = world.metrics().await;
    for line in ["easel_inference_adapter_evictions_total 1", "easel_inference_adapter_bytes 8"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(metrics.contains("easel_inference_adapter_load_seconds_count 3"));
}

#[tokio::test]
async fn an_adapter_that_can_not_be_used_fails_its_requests_alone_and_says_why() {
    let adapters: [(&str, &[u8]); 3] = [("ink", b"1"), ("large", b"four thousand bytes, or so"), ("torn", b"1234")];
    let (world, _) = world(&["--adapter-bytes=10"], &adapters).await;
    std::fs::write(world.folder.path().join("torn/pytorch_lora_weights.safetensors"), b"4321").unwrap();
    for (name, words) in [("large", "--adapter-bytes"), ("torn", "they were changed or the copy is torn")] {
        let answer = world.gateway.send(with(&json!([{"name": name}]))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (422, "adapter_unusable"));
        assert!(message(&answer).contains(name) && message(&answer).contains(words), "{}", message(&answer));
    }
    let report = world.operator.report_until(|_| true).await;
    assert!(is_ready(&report, MODEL));
    let reason = |state: &AdapterState| match state {
        AdapterState::Refused { reason, .. } => Some(*reason),
        AdapterState::Fetching | AdapterState::OnDisk | AdapterState::InMemory { .. } => None,
    };
    let reasons: Vec<_> = states(&report).iter().map(|(_, state)| reason(state)).collect();
    assert_eq!(reasons, [None, Some(RefusalReason::NoSpace), Some(RefusalReason::DigestMismatch)]);
    picture(&world, &json!([{"name": "ink"}])).await;
}

#[tokio::test]
async fn together_more_than_the_budget_is_refused_and_not_waited_for() {
    let (world, _) = world(&["--adapter-bytes=6"], &[("a", b"4444"), ("b", b"444b")]).await;
    let answer = world.gateway.send(with(&json!([{"name": "a"}, {"name": "b"}]))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "adapter_unusable"));
    picture(&world, &json!([{"name": "b"}])).await;
}

#[tokio::test]
async fn adapters_come_and_go_with_the_residency_while_the_model_serves() {
    let (world, model) = world(&[], &[("ink", b"1")]).await;
    let ink = picture(&world, &json!([{"name": "ink"}])).await;
    let changed =
        DesiredModel { adapters: vec![adapter(&world, "ink", b"2"), adapter(&world, "wax", b"3")], ..model.clone() };
    world.operator.hold(2, vec![changed]).await;
    assert!(is_ready(&world.operator.report_until(|_| true).await, MODEL), "the model was taken away");
    assert_ne!(picture(&world, &json!([{"name": "ink"}])).await, ink);
    picture(&world, &json!([{"name": "wax"}])).await;
    world.operator.hold(3, vec![DesiredModel { adapters: Vec::new(), ..model }]).await;
    world.operator.report_until(|report| report.memory.used_bytes == 1000).await;
    assert_eq!(world.gateway.send(with(&json!([{"name": "wax"}]))).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn swapping_adapters_under_load_keeps_memory_within_the_budget() {
    let names: Vec<String> = (0..8).map(|number| format!("a{number}")).collect();
    let contents: Vec<Vec<u8>> = (0..8).map(|number| vec![number; 4]).collect();
    let adapters: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let (world, _) = world(&["--adapter-bytes=9", "--fake-step-ms=1"], &adapters).await;
    let requests = (0..64).map(|number| {
        let wish = json!([{"name": format!("a{}", number * 5 % 8)}]);
        world.gateway.send(with(&wish))
    });
    let mut watch = world.pod.engine().watch();
    let peak = tokio::spawn(async move {
        let mut peak = 0;
        while watch.changed().await.is_ok() {
            peak = peak.max(watch.borrow().report.memory.used_bytes);
        }
        peak
    });
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    drop(world);
    let peak = peak.await.unwrap();
    assert!((1001..=1009).contains(&peak), "{peak} bytes of a model of 1000 and adapters of 9");
}

#[tokio::test]
async fn whoever_waits_for_an_adapter_keeps_nobody_else_waiting_and_waits_no_longer_than_its_deadline() {
    let (world, _) = world(&["--fake-step-ms=1", "--fake-load-ms=1500"], &[("ink", b"1")]).await;
    let client = world.gateway.clone();
    let waits = tokio::spawn(async move { client.send(with(&json!([{"name": "ink"}]))).await });
    world.operator.report_until(|report| report.waiting == 1).await;
    let mut late = with(&json!([{"name": "ink"}]));
    late.headers_mut().insert("x-easel-deadline-ms", "50".parse().unwrap());
    let client = world.gateway.clone();
    let late = tokio::spawn(async move { client.send(late).await });
    assert_eq!(world.gateway.send(generation(&json!({}))).await.status, StatusCode::OK);
    assert_eq!(late.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    assert!(!waits.is_finished(), "the adapter was read before the others were answered");
    assert_eq!(waits.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn requests_that_wait_for_an_adapter_count_in_the_queue_and_can_be_cancelled() {
    let flags = ["--queue-limit=2", "--fake-load-ms=1500"];
    let (world, _) = world(&flags, &[("ink", b"1")]).await;
    let request = |id: &str| {
        let mut request = with(&json!([{"name": "ink"}]));
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        let client = world.gateway.clone();
        tokio::spawn(async move { client.send(request).await })
    };
    let (first, second) = (request("first"), request("second"));
    world.operator.report_until(|report| report.waiting == 2).await;
    let third = request("third").await.unwrap();
    assert_eq!((third.status, third.code()), (StatusCode::TOO_MANY_REQUESTS, "queue_full"));
    let cancel = Request::delete(format!("{REQUESTS_PATH}/first")).body(Body::empty()).unwrap();
    assert_eq!(world.gateway.send(cancel).await.status, StatusCode::NO_CONTENT);
    assert_eq!(first.await.unwrap().code(), "request_cancelled");
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
}
