//! Probes, metrics and the report stream say what is, and the probes' port says nothing else.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;

use crate::support::{MODEL, World, is_ready};

#[tokio::test]
async fn readiness_follows_the_residency() {
    let world = World::start(&["--fake-load-ms=200"]).await;
    assert_eq!(world.probe("/healthz").await.0, StatusCode::OK);
    assert_eq!(
        world.probe("/readyz").await,
        (StatusCode::SERVICE_UNAVAILABLE, "no residency was accepted yet\n".into())
    );
    world.operator.hold(1, vec![world.model(MODEL)]).await;
    assert_eq!(world.probe("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "art/model is not ready yet\n".into()));
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    assert_eq!(world.probe("/readyz").await.0, StatusCode::OK);
    world.operator.hold(2, vec![]).await;
    assert_eq!(world.probe("/readyz").await.0, StatusCode::OK, "a spare holds all of nothing");
}

#[tokio::test]
async fn the_plain_ports_serve_nothing_else() {
    let world = World::ready(&[]).await;
    for path in ["/", "/v1/models", "/engine/v1/report", "/metrics", "/v1/images/generations"] {
        assert_eq!(world.probe(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_report_has_a_line_now_one_a_second_and_ten_a_second_at_most() {
    let world = World::ready(&["--fake-step-ms=64"]).await;
    let mut quiet = world.gateway.reports().await;
    let started = Instant::now();
    for _ in 0..3 {
        quiet.next().await.unwrap();
    }
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&started.elapsed()));

    let mut busy = world.gateway.reports().await;
    busy.next().await.unwrap();
    let gateway = world.gateway.clone();
    let drawing = tokio::spawn(async move { gateway.generate(json!({"steps": 300})).await });
    let started = Instant::now();
    for _ in 0..4 {
        busy.next().await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn the_report_measures_steps_at_the_default_size() {
    let world = World::ready(&["--fake-step-ms=640", "--queue-limit=9", "--memory-bytes=9000000"]).await;
    let report = world.gateway.report_until(|_| true).await;
    assert_eq!((report.models[0].step_ms, report.queue_limit, report.device.as_str()), (None, 9, "fake"));
    assert_eq!((report.memory.used_bytes, report.memory.total_bytes), (1000, 9_000_000));
    world.gateway.generate(json!({"steps": 3})).await;
    let report = world.gateway.report_until(|report| report.models[0].step_ms.is_some()).await;
    let step_ms = report.models[0].step_ms.unwrap();
    assert!((10.0..30.0).contains(&step_ms), "{step_ms}");
    let times = &report.models[0].step_times;
    assert!(times.iter().any(|time| time.batch == 1 && time.rows == 2 && time.ms > 9.0), "{times:?}");
    assert_eq!((report.left_ms, report.running_left_ms), (0, 0));
    let gateway = world.gateway.clone();
    let drawing = tokio::spawn(async move { gateway.generate(json!({"steps": 100})).await });
    let busy = world.gateway.report_until(|report| report.running == 1).await;
    assert!((1..10_000).contains(&busy.running_left_ms), "100 steps of 10 ms are a second: {busy:?}");
    assert!(busy.left_ms >= busy.running_left_ms, "{busy:?}");
    assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_requests_steps_and_loads() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    world.gateway.generate(json!({"n": 2, "steps": 5})).await;
    world.gateway.generate(json!({"n": 0})).await;
    let text = world.metrics().await;
    for line in [
        "easel_inference_requests_total{outcome=\"drawn\"} 1",
        "easel_inference_requests_total{outcome=\"invalid\"} 1",
        "easel_inference_step_seconds_count{batch=\"2\",shape=\"8x8x2\"} 5",
        "easel_inference_batch_occupancy_sum 2.5",
        "easel_inference_queue_seconds_count 1",
        "easel_inference_cancelled_steps_total 0",
        "easel_inference_load_seconds_count{from=\"nowhere\",to=\"device\"} 1",
        "easel_inference_verify_seconds_count 1",
        "easel_inference_model_ready{model=\"art/model\"} 1",
        "easel_inference_running 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
