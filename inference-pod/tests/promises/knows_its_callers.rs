//! Nobody without a certificate of the pod's authority is heard, and nobody does more than their identity may.

use axum::body::Body;
use easel_api::engine::{REPORT_PATH, RESIDENCY_PATH};
use easel_api::identity::Identity;
use easel_api::images::{GENERATIONS_PATH, MODELS_PATH};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::support::{Authority, World};

fn models() -> Request<Body> {
    Request::get(MODELS_PATH).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_client_without_a_certificate_does_not_get_through_the_handshake() {
    let world = World::start(&[]).await;
    let nobody = world.authority.client_without_certificate(world.pod.addresses().engine);
    assert!(nobody.try_send(models()).await.is_err());
}

#[tokio::test]
async fn a_client_of_another_authority_does_not_get_through_the_handshake() {
    let world = World::start(&[]).await;
    let stranger = Authority::new();
    let uri = Identity::Operator.uri();
    let stranger = stranger.client(&world.authority, Some(&uri), world.pod.addresses().engine);
    assert!(stranger.try_send(models()).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_names_nobody_may_do_nothing() {
    let world = World::start(&[]).await;
    for uri in [None, Some("spiffe://easel.internal/admin")] {
        let client = world.authority.client(&world.authority, uri, world.pod.addresses().engine);
        for path in [MODELS_PATH, REPORT_PATH] {
            let answer = client.get(path).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "forbidden"), "{path}");
        }
        let request = Request::post(GENERATIONS_PATH).body(Body::from("{}")).unwrap();
        assert_eq!(client.send(request).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn only_the_operator_may_put_residency() {
    let world = World::start(&[]).await;
    let answer = world.gateway.hold(1, vec![world.model("art/model")]).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "forbidden"));
    assert!(!world.pod.engine().snapshot().accepted);
    assert_eq!(world.operator.hold(1, vec![]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_the_envelope() {
    let world = World::start(&[]).await;
    let answer = world.gateway.get("/v1/audio/speech").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "unknown_url"));
    let answer = world.gateway.get(RESIDENCY_PATH).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    assert_eq!(answer.body["error"]["type"], json!("invalid_request_error"));
}
