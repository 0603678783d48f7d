use easel_api::engine::{ModelState, RefusalReason};
use easel_crds::GpuPool;
use easel_crds::condition::ConditionType::{CheckpointVerified, Placed, Ready, Serving};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::planning::testing::view;
use crate::testing::{DIGEST, changed_pod, model, observed, pool, report, shared_pod, with};

fn shown(pools: &[GpuPool], model: &ImageModel, pods: &[(Pod, Option<easel_api::engine::Report>)]) -> ImageModelStatus {
    let view = view(observed(pools, std::slice::from_ref(model), pods));
    of(model, &view, &Found::default())
}

fn of(model: &ImageModel, view: &View, found: &Found) -> ImageModelStatus {
    let shown = Shown { id: &ModelId::new("art/m"), model, view, found };
    status(&shown, Some("http://easel"), "easel-system", &[], Timestamp::UNIX_EPOCH)
}

fn says(status: &ImageModelStatus, kind: ConditionType) -> (&str, &str, &str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind.to_string()).unwrap();
    (&found.status, &found.reason, &found.message)
}

fn one(state: ModelState) -> [(Pod, Option<easel_api::engine::Report>); 1] {
    [(shared_pod("a", "cpu", "10.0.0.1"), Some(report(1, 1, &[("art/m", state)])))]
}

#[test]
fn a_model_that_answers_is_ready_in_every_part() {
    let status = shown(&[pool("cpu")], &model("art", "m"), &one(ModelState::Ready));
    for kind in [Ready, CheckpointVerified, Placed, Serving] {
        assert_eq!(says(&status, kind).0, "True", "{kind}");
    }
    assert_eq!((status.replicas, status.ready_replicas, status.digest.as_deref()), (1, 1, Some(DIGEST)));
    assert_eq!(status.pools, [PoolReplicas { pool: "cpu".into(), replicas: 1, ready_replicas: 1 }]);
    assert_eq!(status.url.as_deref(), Some("http://easel"));
}

#[test]
fn every_state_of_a_checkpoint_has_its_reason_and_its_words() {
    let refused = |reason| ModelState::Refused { reason, message: "why and how to mend it".into() };
    for (state, is, reason, words) in [
        (ModelState::Verifying { done_bytes: 57, total_bytes: 100 }, "Unknown", "Verifying", "50 %"),
        (ModelState::Loading, "True", "Verified", DIGEST),
        (refused(RefusalReason::DigestMismatch), "False", "DigestMismatch", "a: why and how to mend it"),
        (refused(RefusalReason::NotFound), "False", "NotFound", "why and how to mend it"),
        (refused(RefusalReason::Unsupported), "False", "Unsupported", "why and how to mend it"),
        (refused(RefusalReason::LoadFailed), "False", "LoadFailed", "why and how to mend it"),
    ] {
        let status = shown(&[pool("cpu")], &model("art", "m"), &one(state));
        let (found, because, message) = says(&status, CheckpointVerified);
        assert_eq!((found, because), (is, reason));
        assert!(message.contains(words), "{message}");
        assert_eq!(says(&status, Ready).0, "False");
    }
}

#[test]
fn a_refused_new_checkpoint_is_shown_while_the_former_one_serves() {
    let refused = ModelState::Refused { reason: RefusalReason::DigestMismatch, message: "m".into() };
    let mut swap = report(1, 1, &[("art/m", ModelState::Ready), ("art/m", refused)]);
    swap.models[0].digest = "sha256:former".into();
    let status = shown(&[pool("cpu")], &model("art", "m"), &[(shared_pod("a", "cpu", "10.0.0.1"), Some(swap))]);
    assert_eq!(says(&status, CheckpointVerified).1, "DigestMismatch");
    assert_eq!((says(&status, Serving).0, status.digest.as_deref()), ("True", Some("sha256:former")));
}

#[test]
fn every_reason_for_which_there_is_no_place_is_told() {
    let spec = |spec| with(model("art", "m"), spec);
    for (pools, model, reason, words) in [
        (vec![], spec(json!({})), "NoPool", "create one"),
        (vec![pool("cpu")], spec(json!({"pools": ["gone"]})), "UnknownPool", "no GpuPool of this name"),
        (vec![pool("cpu")], spec(json!({"memory": "9Gi"})), "TooLittleMemory", "needs 9 GiB"),
        (
            vec![with(pool("cpu"), json!({"limits": {"replicas": 0}}))],
            spec(json!({})),
            "PoolLimitReached",
            "limits.replicas",
        ),
        (vec![pool("cpu")], spec(json!({"replicas": {"min": 0}})), "Parked", "raise it"),
    ] {
        let status = shown(&pools, &model, &[]);
        let (is, because, message) = says(&status, Placed);
        assert_eq!((is, because), ("False", reason));
        assert!(message.contains(words), "{message}");
        assert_eq!(says(&status, Ready).1, reason);
    }
}

#[test]
fn a_model_that_is_wrong_by_itself_or_refused_by_the_server_says_so() {
    let view = view(observed(&[pool("cpu")], &[model("art", "m")], &[]));
    let invalid = Found { invalid: Some("spec.memory: bad".into()), failure: None };
    assert_eq!(says(&of(&model("art", "m"), &view, &invalid), Placed), ("False", "InvalidSpec", "spec.memory: bad"));
    let failure = Found { invalid: None, failure: Some("quota exceeded".into()) };
    let status = of(&model("art", "m"), &view, &failure);
    assert!(says(&status, Serving).2.contains("quota exceeded"));
}

#[test]
fn a_pod_that_can_not_start_or_be_made_is_told_in_the_clusters_words() {
    let waiting = json!({"status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}});
    let pod = changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &waiting);
    let status = shown(&[pool("cpu")], &model("art", "m"), &[(pod, None)]);
    let (_, reason, message) = says(&status, Serving);
    assert_eq!((reason, message), ("NoReadyReplica", "pod a: ImagePullBackOff: no such image"));
    let mut world = observed(&[pool("cpu")], &[model("art", "m")], &[]);
    let refused = json!({"metadata": {}, "spec": {"selector": {}, "template": {}}, "status": {"conditions": [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}});
    let key = ("easel-system".to_owned(), "easel-pool-cpu".to_owned());
    world.deployments.insert(key, std::sync::Arc::new(crate::testing::read(refused)));
    let status = of(&model("art", "m"), &view(world), &Found::default());
    assert_eq!(says(&status, Serving).2, "deployment easel-pool-cpu can't make its pods: exceeded quota");
    let starting = shown(&[pool("cpu")], &model("art", "m"), &[]);
    assert_eq!(says(&starting, Serving).1, "Starting");
}

#[test]
fn the_scale_selector_names_the_pods_that_a_label_can_reach() {
    let ready = shown(&[pool("cpu")], &model("art", "m"), &one(ModelState::Ready));
    assert_eq!(ready.selector, None);
    let dedicated = shown(&[pool("cpu")], &with(model("art", "m"), json!({"placement": "Dedicated"})), &[]);
    assert_eq!(dedicated.selector.as_deref(), Some("easel.dev/workload in (easel-model-m)"));
}
