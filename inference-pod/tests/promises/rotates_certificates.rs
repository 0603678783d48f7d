//! New certificates in the mounted folder are used without a restart.

use easel_api::identity::Identity;
use easel_api::images::MODELS_PATH;
use hyper::{Request, StatusCode};

use axum::body::Body;

use crate::support::{Authority, Client, World, eventually};

async fn heard(client: &Client) -> bool {
    client.try_send(Request::get(MODELS_PATH).body(Body::empty()).unwrap()).await.is_ok()
}

#[tokio::test]
async fn a_new_authority_is_trusted_and_the_old_one_no_more() {
    let world = World::start(&["--tls-poll-ms=20"]).await;
    let next = Authority::new();
    let client = next.client(&next, Some(Identity::Gateway.uri()), world.pod.addresses().engine);
    assert!(heard(&world.gateway).await);
    assert!(!heard(&client).await);
    next.write_server(world.folder.path());
    eventually("the new authority is trusted", || heard(&client)).await;
    assert!(!heard(&world.gateway).await);
    assert_eq!(client.get(MODELS_PATH).await.status, StatusCode::OK);
}

#[tokio::test]
async fn files_that_can_not_be_used_leave_the_old_ones_in_force() {
    let world = World::start(&["--tls-poll-ms=20"]).await;
    std::fs::write(world.folder.path().join("tls.key"), "torn").unwrap();
    // A look that follows the torn write must have come by the time when a later, whole one has.
    let next = Authority::new();
    assert!(heard(&world.gateway).await);
    next.write_server(world.folder.path());
    let client = next.client(&next, Some(Identity::Gateway.uri()), world.pod.addresses().engine);
    eventually("the whole files are used", || heard(&client)).await;
}
