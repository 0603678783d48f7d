//! Pictures on their way never take more memory than there is: they wait, or hear which size would fit.

use hyper::StatusCode;
use serde_json::json;

use crate::support::World;

/// A picture of 64x64 has 8×8 latent positions and two rows: 4 MiB in a step, and 2.5 MiB while it runs.
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_picture_that_would_not_fit_is_refused_with_the_size_that_would() {
    let world = World::ready(&["--fake-step-ms=1", &format!("--memory-bytes={}", 12 * MIB)]).await;
    let refused = world.gateway.generate(json!({"size": "128x128"})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "size_does_not_fit"));
    assert_eq!(refused.body["error"]["param"], json!("size"));
    let message = refused.body["error"]["message"].as_str().unwrap().to_owned();
    let size = message.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert_eq!(world.gateway.generate(json!({"size": size})).await.status, StatusCode::OK, "{message}");
}

#[tokio::test]
async fn a_picture_that_would_not_fit_when_it_is_decoded_is_refused_before_it_is_drawn() {
    let flags = ["--fake-step-ms=1", "--fake-decode-bytes=100000", &format!("--memory-bytes={}", 8 * MIB)];
    let world = World::ready(&flags).await;
    let refused = world.gateway.generate(json!({"size": "96x96"})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "size_does_not_fit"));
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("48x48 would fit"), "{message}");
}

#[tokio::test]
async fn pictures_that_fit_one_at_a_time_are_drawn_one_at_a_time() {
    let world = World::ready(&["--fake-step-ms=1", &format!("--memory-bytes={}", 8 * MIB)]).await;
    assert_eq!(world.gateway.generate(json!({"n": 3, "steps": 2, "size": "64x64"})).await.status, StatusCode::OK);
    let metrics = world.metrics().await;
    assert!(metrics.contains("easel_inference_step_seconds_count{batch=\"1\",shape=\"8x8x2\"} 6"), "{metrics}");
}

#[tokio::test]
async fn what_the_device_says_replaces_what_was_assumed() {
    let flags = ["--fake-step-ms=1", "--fake-position-bytes=1000", &format!("--memory-bytes={}", 8 * MIB)];
    let world = World::ready(&flags).await;
    for _ in 0..2 {
        assert_eq!(world.gateway.generate(json!({"n": 3, "steps": 2, "size": "64x64"})).await.status, StatusCode::OK);
    }
    let metrics = world.metrics().await;
    assert!(metrics.contains("step_seconds_count{batch=\"3\",shape=\"8x8x2\"}"), "{metrics}");
}
