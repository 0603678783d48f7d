//! The newest residency is what is resident: older ones are refused, models come, go and are swapped.

use easel_api::engine::{ModelState, RefusalReason};
use hyper::StatusCode;
use serde_json::json;

use crate::support::{MODEL, World, checkpoint, desired, is_ready, path};

#[tokio::test]
async fn an_older_generation_is_refused_and_the_same_again_changes_nothing() {
    let world = World::ready(&[]).await;
    let model = world.model(MODEL);
    assert_eq!(world.operator.hold(5, vec![model.clone()]).await.status, StatusCode::OK);
    let stale = world.operator.hold(4, vec![]).await;
    assert_eq!((stale.status, stale.code()), (StatusCode::CONFLICT, "stale_generation"));
    let other = world.operator.hold(5, vec![]).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "one generation means one thing");
    let again = world.operator.hold(5, vec![model]).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.body["models"][0]["state"]["state"], json!("ready"));
    assert_eq!(again.body["generation"], json!({"term": 1, "sequence": 5}));
}

#[tokio::test]
async fn a_model_that_is_named_twice_is_refused() {
    let world = World::start(&[]).await;
    let answer = world.operator.hold(1, vec![world.model(MODEL), world.model(MODEL)]).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "duplicate_model"));
}

#[tokio::test]
async fn several_models_are_resident_and_each_draws() {
    let world = World::start(&["--fake-step-ms=1"]).await;
    let models = ["art/a", "art/b"].map(|id| world.model(id));
    world.operator.hold(1, models.to_vec()).await;
    let report = world.operator.report_until(|report| is_ready(report, "art/a") && is_ready(report, "art/b")).await;
    assert_eq!(report.memory.used_bytes, 2000);
    for model in &models {
        let answer = world.gateway.generate(json!({"model": model.id.as_str()})).await;
        assert_eq!(answer.header("x-easel-model-digest"), model.checkpoint.digest);
    }
    let listed = world.gateway.get("/v1/models").await.body;
    assert_eq!((&listed["data"][0]["id"], &listed["data"][1]["id"]), (&json!("art/a"), &json!("art/b")));
}

#[tokio::test]
async fn a_changed_digest_is_loaded_beside_and_swapped_without_a_gap() {
    let world = World::ready(&["--fake-step-ms=1", "--fake-load-ms=300"]).await;
    let former = world.model(MODEL).checkpoint.digest;
    let next = desired(MODEL, checkpoint(&world.folder.path().join("next"), "next"));
    world.operator.hold(2, vec![next.clone()]).await;
    let during = world.operator.report_until(|report| report.models.len() == 2).await;
    assert_eq!((&during.models[0].digest, &during.models[0].state), (&former, &ModelState::Ready));
    assert_eq!(world.probe("/readyz").await.0, StatusCode::OK);
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!(answer.header("x-easel-model-digest"), former);
    let digest = next.checkpoint.digest;
    let after = world.operator.report_until(|report| report.models.len() == 1 && is_ready(report, MODEL)).await;
    assert_eq!((&after.models[0].digest, after.memory.used_bytes), (&digest, 1000));
    assert_eq!(world.gateway.generate(json!({})).await.header("x-easel-model-digest"), digest);
}

#[tokio::test]
async fn a_removed_model_finishes_what_it_draws_and_leaves() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let gateway = world.gateway.clone();
    let drawing = tokio::spawn(async move { gateway.generate(json!({"steps": 30})).await });
    world.operator.report_until(|report| report.running == 1).await;
    let report = world.operator.hold(2, vec![]).await.body;
    assert_eq!((&report["models"], &report["memory"]["used_bytes"]), (&json!([]), &json!(1000)));
    let refused = world.gateway.generate(json!({})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::NOT_FOUND, "model_not_resident"));
    assert_eq!(drawing.await.unwrap().status, StatusCode::OK);
    world.operator.report_until(|report| report.memory.used_bytes == 0).await;
}

#[tokio::test]
async fn a_model_without_room_is_refused_with_the_sizes_and_taken_when_another_leaves() {
    let world = World::start(&["--memory-bytes=1500"]).await;
    let (a, b) = (world.model("art/a"), world.model("art/b"));
    world.operator.hold(1, vec![a, b.clone()]).await;
    let refused = |report: &easel_api::engine::Report| matches!(report.models[1].state, ModelState::Refused { .. });
    let report = world.operator.report_until(|report| report.models.len() == 2 && refused(report)).await;
    let ModelState::Refused { reason, message } = &report.models[1].state else { unreachable!() };
    assert_eq!(*reason, RefusalReason::LoadFailed);
    assert!(message.contains("1000 bytes") && message.contains("500 of 1500"), "{message}");
    assert_eq!(world.probe("/readyz").await.0, StatusCode::OK, "the other one serves");
    world.operator.hold(2, vec![b]).await;
    world.operator.report_until(|report| is_ready(report, "art/b")).await;
}

#[tokio::test]
async fn a_refused_model_is_tried_again_by_a_newer_residency() {
    let world = World::start(&[]).await;
    let mut model = world.model(MODEL);
    let away = world.folder.path().join("away");
    std::fs::rename(path(&mut model), &away).unwrap();
    world.operator.hold(1, vec![model.clone()]).await;
    let refused = |report: &easel_api::engine::Report| matches!(report.models[..], [ref m] if matches!(m.state, ModelState::Refused { reason: RefusalReason::NotFound, .. }));
    world.operator.report_until(refused).await;
    std::fs::rename(&away, path(&mut model)).unwrap();
    world.operator.hold(2, vec![model]).await;
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
}
