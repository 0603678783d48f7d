//! A checkpoint whose bytes are not those of its digest is never drawn with, and the report says why.

use easel_api::engine::{DesiredModel, ModelState, RefusalReason};
use hyper::StatusCode;
use serde_json::json;

use crate::support::{MODEL, World, is_ready, path, weights};

/// Holds the model and gives what the report says of its refusal.
async fn refusal(world: &World, model: DesiredModel) -> (RefusalReason, String) {
    world.operator.hold(1, vec![model]).await;
    let refused = |state: &ModelState| matches!(state, ModelState::Refused { .. });
    let report = world.operator.report_until(|report| report.models.iter().any(|model| refused(&model.state))).await;
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "model_not_resident"));
    assert_eq!(world.probe("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "no model can draw\n".into()));
    let ModelState::Refused { reason, message } = report.models[0].state.clone() else { unreachable!() };
    (reason, message)
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_never_served() {
    let world = World::start(&[]).await;
    let mut model = world.model(MODEL);
    let right = std::mem::replace(&mut model.checkpoint.digest, format!("sha256:{}", "0".repeat(64)));
    let (reason, message) = refusal(&world, model).await;
    assert_eq!(reason, RefusalReason::DigestMismatch);
    assert!(message.contains(&right), "says what it found: {message}");
}

#[tokio::test]
async fn one_tampered_byte_is_refused_and_never_served() {
    let world = World::start(&[]).await;
    let mut model = world.model(MODEL);
    let weights = weights(path(&mut model).as_ref());
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[500] ^= 1;
    std::fs::write(weights, bytes).unwrap();
    assert_eq!(refusal(&world, model).await.0, RefusalReason::DigestMismatch);
}

#[tokio::test]
async fn bytes_are_verified_again_at_every_load() {
    let world = World::ready(&[]).await;
    let mut model = world.model(MODEL);
    world.operator.hold(2, vec![]).await;
    world.operator.report_until(|report| report.memory.used_bytes == 0).await;
    std::fs::write(weights(path(&mut model).as_ref()), "other").unwrap();
    world.operator.hold(3, vec![model]).await;
    let report = world
        .operator
        .report_until(|report| report.models.iter().any(|model| matches!(model.state, ModelState::Refused { .. })));
    assert!(!is_ready(&report.await, MODEL));
}

#[tokio::test]
async fn a_missing_folder_a_pickle_and_a_broken_index_are_refused_with_their_reasons() {
    let world = World::start(&[]).await;
    let mut model = world.model(MODEL);
    *path(&mut model) += "-gone";
    assert_eq!(refusal(&world, model).await.0, RefusalReason::NotFound);

    let world = World::start(&[]).await;
    let mut model = world.model(MODEL);
    std::fs::write(format!("{}/unet/diffusion_pytorch_model.bin", path(&mut model)), "pickle").unwrap();
    assert_eq!(refusal(&world, model).await.0, RefusalReason::UnsafeFormat);
}
