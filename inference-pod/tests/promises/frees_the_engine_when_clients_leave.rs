//! A client that hangs up costs no more than the step that is being computed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{World, eventually, generation};

#[tokio::test]
async fn a_client_that_hangs_up_frees_the_engine_before_its_steps_would_end() {
    // 1,000 steps of 10 ms.
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let gateway = world.gateway.clone();
    let request = tokio::spawn(async move { gateway.try_send(generation(&json!({"steps": 1000}))).await });
    world.operator.report_until(|report| report.running == 1).await;
    let hung_up = Instant::now();
    request.abort();
    world.operator.report_until(|report| report.running == 0 && report.waiting == 0).await;
    assert!(hung_up.elapsed() < Duration::from_secs(5));
    let counted = async || world.metrics().await.contains("requests_total{outcome=\"cancelled\"} 1");
    eventually("the count of cancelled requests", counted).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_never_drawn() {
    let world = World::ready(&["--fake-step-ms=640", "--max-batch=1"]).await;
    let start = |body| {
        let gateway = world.gateway.clone();
        tokio::spawn(async move { gateway.generate(body).await })
    };
    let first = start(json!({"steps": 100}));
    world.operator.report_until(|report| report.running == 1).await;
    let second = start(json!({"steps": 1000}));
    world.operator.report_until(|report| report.waiting == 1).await;
    second.abort();
    world.operator.report_until(|report| report.waiting == 0).await;
    assert_eq!(first.await.unwrap().status, 200);
    world.operator.report_until(|report| report.running == 0).await;
}

#[tokio::test]
async fn one_stream_of_a_shared_connection_that_is_reset_is_cancelled_alone() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let sender = world.gateway.connect_h2().await.unwrap();
    let start = |body| {
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(generation(&body)).await })
    };
    let (left, stays) = (start(json!({"steps": 1000})), start(json!({"steps": 100})));
    world.operator.report_until(|report| report.running == 2).await;
    left.abort();
    world.operator.report_until(|report| report.running == 1).await;
    assert_eq!(stays.await.unwrap().unwrap().status(), 200);
    world.operator.report_until(|report| report.running == 0).await;
}
