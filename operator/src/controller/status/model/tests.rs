use easel_api::engine::{AdapterReport, AdapterState, ModelState, RefusalReason};
use easel_crds::GpuPool;
use easel_crds::condition::ConditionType::{AdaptersReady, CheckpointVerified, Placed, Ready, Serving};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::planning::testing::{view, view_with};
use crate::stores::{Contents, SecretKey, Secrets, Tag, TagFailure, Tags};
use crate::testing::{DIGEST, changed_pod, model, observed, pool, report, resolved, shared_pod, with};

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
        (
            ModelState::Fetching { done_bytes: 5_700_000, total_bytes: 9_999_999, seconds_left: Some(61) },
            "Unknown",
            "Fetching",
            "55 % of 10 MB fetched, about 90 s left",
        ),
        (ModelState::Verifying { done_bytes: 57, total_bytes: 100 }, "Unknown", "Verifying", "50 %"),
        (ModelState::Loading, "True", "Verified", DIGEST),
        (refused(RefusalReason::DigestMismatch), "False", "DigestMismatch", "a: why and how to mend it"),
        (refused(RefusalReason::NotFound), "False", "NotFound", "why and how to mend it"),
        (refused(RefusalReason::Unreachable), "False", "Unreachable", "why and how to mend it"),
        (refused(RefusalReason::Unauthorized), "False", "Unauthorized", "why and how to mend it"),
        (refused(RefusalReason::Truncated), "False", "Truncated", "why and how to mend it"),
        (refused(RefusalReason::NoSpace), "False", "NoSpace", "why and how to mend it"),
        (refused(RefusalReason::Unsupported), "False", "Unsupported", "why and how to mend it"),
        (refused(RefusalReason::UnsafeFormat), "False", "UnsafeFormat", "why and how to mend it"),
        (refused(RefusalReason::Unsigned), "False", "Unsigned", "why and how to mend it"),
        (refused(RefusalReason::SignatureInvalid), "False", "SignatureInvalid", "why and how to mend it"),
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

fn two(first: ModelState, second: ModelState) -> [(Pod, Option<easel_api::engine::Report>); 2] {
    [
        (shared_pod("a", "cpu", "10.0.0.1"), Some(report(1, 1, &[("art/m", first)]))),
        (shared_pod("b", "cpu", "10.0.0.2"), Some(report(1, 1, &[("art/m", second)]))),
    ]
}

fn fetching(done_bytes: u64, seconds_left: u64) -> ModelState {
    ModelState::Fetching { done_bytes, total_bytes: 100_000_000, seconds_left: Some(seconds_left) }
}

#[test]
fn a_model_that_one_replica_refuses_and_another_serves_is_ready_and_names_the_refusal() {
    let refused = ModelState::Refused { reason: RefusalReason::NoSpace, message: "no room".into() };
    let two_wanted = with(model("art", "m"), json!({"replicas": {"min": 2}}));
    let status = shown(&[pool("cpu")], &two_wanted, &two(refused, ModelState::Ready));
    let (is, reason, message) = says(&status, CheckpointVerified);
    assert_eq!((is, reason), ("True", "Verified"));
    assert!(message.ends_with("; but a: no room"), "{message}");
    assert_eq!((says(&status, Ready).0, status.replicas, status.ready_replicas), ("True", 2, 1));
}

#[test]
fn the_progress_is_that_of_the_slowest_replica_and_as_coarse_as_a_status_should_be() {
    let two_wanted = with(model("art", "m"), json!({"replicas": {"min": 2}}));
    let progress = |first, second| {
        let found = shown(&[pool("cpu")], &two_wanted, &two(first, second)).checkpoint.unwrap();
        (found.fetched_bytes, found.total_bytes, found.seconds_left)
    };
    let expected = (Some(25_000_000), Some(100_000_000), Some(45));
    assert_eq!(progress(fetching(80_000_000, 5), fetching(27_000_000, 42)), expected);
    assert_eq!(progress(fetching(80_000_000, 5), fetching(29_999_999, 41)), expected);
    assert_eq!(progress(ModelState::Ready, ModelState::Loading), (None, None, None));
}

#[test]
fn a_missing_secret_is_said_before_anything_is_fetched_and_after_it_takes_nothing_away() {
    let named = with(
        model("art", "m"),
        json!({"checkpoint": {"uri": "s3://b/m", "digest": DIGEST, "secretRef": {"name": "s"}}}),
    );
    let key = SecretKey { namespace: "art".into(), name: "s".into() };
    let absent = Secrets { complete: true, read: [(key, Contents::Absent)].into() };
    let of = |pods: &[(Pod, Option<easel_api::engine::Report>)]| {
        let world = observed(&[pool("cpu")], std::slice::from_ref(&named), pods);
        let view = view_with(world, &absent, Tags::default());
        (of(&named, &view, &Found::default()), view.desired.values().map(Vec::len).sum::<usize>())
    };
    let empty = [(shared_pod("a", "cpu", "10.0.0.1"), Some(report(1, 1, &[])))];
    let (status, told) = of(&empty);
    let (is, reason, message) = says(&status, CheckpointVerified);
    assert_eq!((is, reason, told), ("False", "SecretNotFound", 0));
    assert!(message.contains("Secret art/s does not exist; create it"), "{message}");
    let (status, told) = of(&one(ModelState::Ready));
    assert_eq!((says(&status, Ready).0, told), ("True", 1));
    assert!(says(&status, CheckpointVerified).2.contains("Secret art/s does not exist"));
}

#[test]
fn a_tag_is_pinned_in_the_status_before_any_pod_is_told() {
    let uri = "oci://r.example/m:v1";
    let tagged = with(model("art", "m"), json!({"checkpoint": {"uri": uri, "resolveTag": true}}));
    let of = |model: &ImageModel, tag: Option<Tag>| {
        let pods = [(shared_pod("a", "cpu", "10.0.0.1"), Some(report(1, 1, &[])))];
        let tags = tag.into_iter().map(|tag| (ModelId::new("art/m"), tag)).collect();
        let view = view_with(observed(&[pool("cpu")], std::slice::from_ref(model), &pods), &Secrets::default(), tags);
        (of(model, &view, &Found::default()), view.desired.values().map(Vec::len).sum::<usize>())
    };
    let (status, told) = of(&tagged, Some(Tag::Resolving));
    assert_eq!((&says(&status, CheckpointVerified).1, told), (&"ResolvingTag", 0));
    assert_eq!(says(&status, Placed).0, "True", "it has its place, and is not told yet");
    let failure = TagFailure { reason: Reason::Unauthorized, message: "why and how".into() };
    let (status, _) = of(&tagged, Some(Tag::Failed(failure)));
    assert_eq!(says(&status, CheckpointVerified), ("False", "Unauthorized", "why and how"));
    let (status, told) = of(&tagged, Some(Tag::Resolved { uri: uri.into(), digest: DIGEST.into() }));
    let pinned = status.checkpoint.unwrap();
    assert_eq!((&*pinned.uri, pinned.digest.as_deref(), told), (uri, Some(DIGEST), 0));
    let (status, told) = of(&resolved(tagged, uri, DIGEST), None);
    assert_eq!((status.checkpoint.unwrap().digest.as_deref(), told), (Some(DIGEST), 1));
}

#[test]
fn while_a_new_tag_is_resolved_the_former_pin_stays() {
    let tagged = with(model("art", "m"), json!({"checkpoint": {"uri": "oci://r.example/m:v2", "resolveTag": true}}));
    let former = resolved(tagged, "oci://r.example/m:v1", DIGEST);
    let status = shown(&[pool("cpu")], &former, &one(ModelState::Ready));
    let pinned = status.checkpoint.clone().unwrap();
    assert_eq!((&*pinned.uri, pinned.digest.as_deref()), ("oci://r.example/m:v1", Some(DIGEST)));
    assert_eq!((says(&status, CheckpointVerified).1, says(&status, Serving).0), ("ResolvingTag", "True"));
}

#[test]
fn adapters_have_a_condition_of_their_own_that_takes_nothing_from_the_model() {
    let adapter = json!({"name": "ink", "uri": "s3://b/ink", "digest": DIGEST, "secretRef": {"name": "s"}});
    let wearing = with(model("art", "m"), json!({"adapters": [adapter]}));
    let of = |state: Option<AdapterState>, secret: Contents| {
        let mut pods = one(ModelState::Ready);
        let adapters = state.map(|state| AdapterReport { name: "ink".into(), digest: DIGEST.into(), state });
        pods[0].1.as_mut().unwrap().models[0].adapters.extend(adapters);
        let key = SecretKey { namespace: "art".into(), name: "s".into() };
        let secrets = Secrets { complete: true, read: [(key, secret)].into() };
        let world = observed(&[pool("cpu")], std::slice::from_ref(&wearing), &pods);
        let status = of(&wearing, &view_with(world, &secrets, Tags::default()), &Found::default());
        assert_eq!(says(&status, Ready).0, "True");
        let (is, reason, message) = says(&status, AdaptersReady);
        (is.to_owned(), reason.to_owned(), message.to_owned())
    };
    let found = || {
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|key| (key.to_owned(), b"x".to_vec()));
        Contents::Found(keys.into())
    };
    let refused = AdapterState::Refused { reason: RefusalReason::Unsupported, message: "it is DoRA".into() };
    for (state, is, reason, words) in [
        (None, "Unknown", "Fetching", "replicas are without ink"),
        (Some(AdapterState::Fetching), "Unknown", "Fetching", "replicas are without ink"),
        (Some(AdapterState::OnDisk), "True", "Available", "every adapter"),
        (Some(AdapterState::InMemory { bytes: 1 }), "True", "Available", "every adapter"),
        (Some(refused), "False", "Unsupported", "'ink' in a: it is DoRA"),
    ] {
        let (found_is, found_reason, message) = of(state, found());
        assert_eq!((&*found_is, &*found_reason), (is, reason), "{message}");
        assert!(message.contains(words), "{message}");
    }
    let (is, reason, message) = of(None, Contents::Absent);
    assert_eq!((&*is, &*reason), ("False", "SecretNotFound"));
    assert!(message.starts_with("'ink': Secret art/s does not exist"), "{message}");
    let bare = shown(&[pool("cpu")], &model("art", "m"), &one(ModelState::Ready));
    assert!(!bare.conditions.iter().any(|condition| condition.type_ == AdaptersReady.to_string()));
}
