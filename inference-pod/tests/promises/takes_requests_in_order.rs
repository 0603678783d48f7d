//! Who goes first is said by two headers, and what was sent can be called back by its id.

use axum::body::Body;
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::support::{World, generation};

fn with(header: (&'static str, &'static str), body: &serde_json::Value) -> Request<Body> {
    let mut request = generation(body);
    request.headers_mut().insert(header.0, header.1.parse().unwrap());
    request
}

#[tokio::test]
async fn a_priority_or_tenant_that_is_none_is_refused_by_name() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    for header in [("x-easel-priority", "urgent"), ("x-easel-tenant", "a b")] {
        let refused = world.gateway.send(with(header, &json!({}))).await;
        assert_eq!(
            (refused.status, refused.body["error"]["param"].as_str()),
            (StatusCode::BAD_REQUEST, Some(header.0))
        );
    }
    let taken = world.gateway.send(with(("x-easel-priority", "high"), &json!({}))).await;
    assert_eq!(taken.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_of_high_priority_overtakes_one_that_is_being_drawn() {
    // 1,000 steps of 10 ms.
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let gateway = world.gateway.clone();
    let long = tokio::spawn(async move { gateway.send(with(("x-request-id", "long"), &json!({"steps": 1000}))).await });
    world.operator.report_until(|report| report.running == 1).await;
    let high = with(("x-easel-priority", "high"), &json!({"steps": 2, "size": "128x128"}));
    assert_eq!(world.gateway.send(high).await.status, StatusCode::OK);
    assert!(!long.is_finished());
    let cancel = Request::delete("/engine/v1/requests/long").body(Body::empty()).unwrap();
    assert_eq!(world.gateway.send(cancel).await.status, StatusCode::NO_CONTENT);
    let cancelled = long.await.unwrap();
    assert_eq!((cancelled.status, cancelled.code()), (StatusCode::CONFLICT, "request_cancelled"));
    let metrics = world.metrics().await;
    let steps = metrics.lines().find_map(|line| line.strip_prefix("easel_inference_cancelled_steps_total "));
    assert!(steps.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    let again = Request::delete("/engine/v1/requests/long").body(Body::empty()).unwrap();
    let unknown = world.gateway.send(again).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "unknown_request"));
}
