//! Above its bound the pod says no at once, and how long it would have taken.

use hyper::StatusCode;
use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn a_full_queue_is_answered_with_429_and_an_honest_retry_after() {
    // Steps of 20 ms, one picture at a time.
    let world = World::ready(&["--fake-step-ms=1280", "--max-batch=1", "--queue-limit=2"]).await;
    let spawn = |body| {
        let gateway = world.gateway.clone();
        tokio::spawn(async move { gateway.generate(body).await })
    };
    let mut drawing = vec![spawn(json!({"steps": 100}))];
    world.operator.report_until(|report| report.running == 1).await;
    drawing.push(spawn(json!({"n": 2, "steps": 50})));
    world.operator.report_until(|report| report.waiting == 2).await;
    let refused = world.gateway.generate(json!({})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "queue_full"));
    assert_eq!(refused.body["error"]["type"], json!("rate_limit_error"));
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((2..=10).contains(&seconds), "200 steps of 20 ms are 4 s; it said {seconds}");
    for drawing in drawing {
        assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(world.gateway.generate(json!({})).await.status, StatusCode::OK);
}
