use serde_json::json;

use super::*;
use crate::names::LABEL_TEMPLATE;
use crate::testing::{pool, with};

fn settings() -> Settings {
    Settings {
        namespace: "easel-system".into(),
        image: "easel-inference:1".into(),
        pull_policy: "IfNotPresent".into(),
        stores: vec!["0.0.0.0/0=443".parse().unwrap(), "namespace/stores=5000,9000".parse().unwrap()],
    }
}

fn shared(spec: serde_json::Value) -> Wanted {
    let shape = Shape::try_from(&with(pool("cpu"), spec)).unwrap();
    let workload = Workload::Shared { pool: "cpu".into(), namespace: "easel-system".into() };
    let owner = OwnerReference { kind: "GpuPool".into(), name: "cpu".into(), ..OwnerReference::default() };
    Wanted { workload, owner, shape, replicas: 2, volume: None }
}

fn dedicated(claim: &str) -> Wanted {
    let workload = Workload::Dedicated { model: "m".into(), namespace: "art".into() };
    let gpu = json!({"devices": "nvidia.com/gpu", "memory": "80Gi", "cpu": "7500m", "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "image": "easel-inference:cuda"});
    Wanted { workload, volume: Some(Volume::Claim(claim.into())), ..shared(gpu) }
}

fn template(wanted: &Wanted) -> String {
    let spec = build(wanted, &settings()).deployment.spec;
    spec.template.metadata.unwrap().labels.unwrap()[LABEL_TEMPLATE].clone()
}

fn yaml(value: &impl serde::Serialize) -> String {
    serde_yaml::to_string(value).unwrap()
}

#[test]
fn a_shared_deployment_is_as_written_down() {
    insta::assert_snapshot!("shared_deployment", yaml(&build(&shared(json!({})), &settings()).deployment));
}

#[test]
fn a_dedicated_deployment_on_gpus_with_a_claim_is_as_written_down() {
    insta::assert_snapshot!("dedicated_deployment", yaml(&build(&dedicated("weights"), &settings()).deployment));
}

#[test]
fn budget_and_policy_are_as_written_down() {
    let Children { deployment: _, disruption, network, claim: _ } = build(&dedicated("weights"), &settings());
    insta::assert_snapshot!("disruption_and_network", format!("{}---\n{}", yaml(&disruption), yaml(&network)));
}

#[test]
fn the_templates_digest_changes_with_the_template_and_with_nothing_else() {
    let same = template(&shared(json!({})));
    assert_eq!(template(&Wanted { replicas: 7, ..shared(json!({})) }), same);
    assert_eq!(template(&shared(json!({"price": {"usdPerHour": "9"}, "limits": {"replicas": 1}}))), same);
    for spec in [
        json!({"memory": "3Gi"}),
        json!({"cpu": "2"}),
        json!({"image": "other"}),
        json!({"precision": "bf16"}),
        json!({"cache": {"size": "5Gi"}}),
        json!({"cache": {"size": "2Gi", "hostPath": "/mnt/easel"}}),
        json!({"verification": {"publicKeys": ["k"]}}),
        json!({"podOverrides": {"annotations": {"a": "b"}}}),
        json!({"podOverrides": {"labels": {"a": "b"}}}),
        json!({"podOverrides": {"runtimeClassName": "nvidia"}}),
    ] {
        assert_ne!(template(&shared(spec.clone())), same, "{spec}");
    }
}

#[test]
fn every_label_of_the_selector_is_on_the_pods() {
    for wanted in [shared(json!({})), dedicated("c")] {
        let spec = build(&wanted, &settings()).deployment.spec;
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert!(spec.selector.match_labels.unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
}

/// The volume of this name, and the folder that it is mounted as.
fn volume(wanted: &Wanted, name: &str) -> (serde_json::Value, String) {
    let pod = build(wanted, &settings()).deployment.spec.template.spec.unwrap();
    let volume = pod.volumes.unwrap().into_iter().find(|volume| volume.name == name).unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    let mut volume = serde_json::to_value(volume).unwrap();
    volume.as_object_mut().unwrap().remove("name");
    (volume, mounts.into_iter().find(|mount| mount.name == name).unwrap().mount_path)
}

#[test]
fn a_cache_is_the_nodes_or_the_claims_or_the_pods_own_with_room_to_spare() {
    let of = |wanted: &Wanted| volume(wanted, "cache").0;
    let own = json!({"emptyDir": {"sizeLimit": "2112Mi"}});
    let host = json!({"hostPath": {"path": "/mnt/easel", "type": "DirectoryOrCreate"}});
    let (node, claim) = (json!({"size": "2Gi", "hostPath": "/mnt/easel"}), json!({"size": "2Gi", "claimName": "c"}));
    let (node, claim) = (shared(json!({"cache": node})), shared(json!({"cache": claim})));
    assert_eq!((of(&shared(json!({}))), of(&node)), (own.clone(), host.clone()));
    assert_eq!(of(&claim), json!({"persistentVolumeClaim": {"claimName": "c"}}));
    let elsewhere = |wanted: Wanted| Wanted { workload: dedicated("w").workload, ..wanted };
    assert_eq!((of(&elsewhere(claim)), of(&elsewhere(node))), (own, host), "a claim is not seen in other namespaces");
}

#[test]
fn an_image_is_mounted_by_the_name_of_its_model_and_pulled_by_the_node() {
    let image = Volume::Image { name: "m".into(), reference: "r.example/m@sha256:0".into() };
    let wanted = Wanted { volume: Some(image), ..dedicated("w") };
    let expected = json!({"image": {"reference": "r.example/m@sha256:0", "pullPolicy": "IfNotPresent"}});
    assert_eq!(volume(&wanted, "checkpoint"), (expected, "/images/m".into()));
}

#[test]
fn the_keys_of_a_pool_are_told_to_all_of_its_pods() {
    let keys = json!({"verification": {"publicKeys": ["a", "b"]}});
    let env =
        |wanted: &Wanted| build(wanted, &settings()).deployment.spec.template.spec.unwrap().containers[0].env.clone();
    let elsewhere = Wanted { workload: dedicated("w").workload, ..shared(keys.clone()) };
    for wanted in [shared(keys), elsewhere] {
        let found = env(&wanted).unwrap();
        assert_eq!((&*found[0].name, found[0].value.as_deref()), ("EASEL_VERIFICATION_KEYS", Some("a\nb\n")));
    }
    assert_eq!(env(&shared(json!({}))), None);
}

fn pod(wanted: &Wanted) -> k8s_openapi::api::core::v1::PodSpec {
    build(wanted, &settings()).deployment.spec.template.spec.unwrap()
}

/// A pool of a device class, with these fields of its spec besides.
fn claimed(fields: &serde_json::Value) -> Wanted {
    let mut spec = json!({"devices": null, "deviceClassName": "gpu.nvidia.com", "devicesPerReplica": 2, "memory": "80Gi",
        "deviceSelectors": ["device.attributes['gpu.nvidia.com'].type == 'gpu'"]});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    shared(spec)
}

#[test]
fn devices_of_a_class_are_claimed_by_a_template_of_their_own() {
    let wanted = claimed(&json!({}));
    let claim = build(&wanted, &settings()).claim.unwrap();
    let name = claim.metadata.name.clone();
    assert_eq!(pod(&wanted).resource_claims.unwrap()[0].resource_claim_template_name, name);
    assert_eq!(pod(&wanted).containers[0].resources.clone().unwrap().claims.unwrap()[0].name, "devices");
    assert!(pod(&wanted).containers[0].args.clone().unwrap().contains(&"--device=cuda".to_owned()));
    insta::assert_snapshot!(yaml(&claim.spec), @r"
    spec:
      devices:
        requests:
        - exactly:
            allocationMode: ExactCount
            count: 2
            deviceClassName: gpu.nvidia.com
            selectors:
            - cel:
                expression: device.attributes['gpu.nvidia.com'].type == 'gpu'
          name: devices
    ");
    let other = build(&claimed(&json!({"devicesPerReplica": 1})), &settings()).claim.unwrap();
    assert_ne!(other.metadata.name, name, "its spec can't change");
    assert_eq!(build(&shared(json!({})), &settings()).claim, None);
}

#[test]
fn a_host_cache_is_told_to_the_pod_and_asked_for_in_its_memory() {
    let memory =
        |wanted: &Wanted| pod(wanted).containers[0].resources.clone().unwrap().limits.unwrap()["memory"].0.clone();
    let with = claimed(&json!({"hostCache": "64Gi"}));
    assert!(pod(&with).containers[0].args.clone().unwrap().contains(&format!("--host-bytes={}", 64_u64 << 30)));
    assert_eq!((memory(&claimed(&json!({}))).as_str(), memory(&with).as_str()), ("43136Mi", "108672Mi"));
}

#[test]
fn what_a_pool_adds_to_its_pods_never_takes_the_operators_place() {
    let overrides = json!({"labels": {"team": "art", "easel.dev/pool": "other", "easel.dev/workload": "other"},
        "annotations": {"note": "x"}, "priorityClassName": "high", "serviceAccountName": "puller",
        "runtimeClassName": "nvidia", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]});
    let wanted = shared(json!({"podOverrides": overrides}));
    let template = build(&wanted, &settings()).deployment.spec.template;
    let (metadata, pod) = (template.metadata.unwrap(), template.spec.unwrap());
    let labels = metadata.labels.unwrap();
    assert_eq!(
        (&*labels["team"], &*labels["easel.dev/pool"], &*labels["easel.dev/workload"]),
        ("art", "cpu", "easel-pool-cpu")
    );
    assert_eq!(metadata.annotations.unwrap()["note"], "x");
    let classes =
        (pod.priority_class_name.as_deref(), pod.service_account_name.as_deref(), pod.runtime_class_name.as_deref());
    assert_eq!(classes, (Some("high"), Some("puller"), Some("nvidia")));
    let plain = self::pod(&shared(json!({})));
    assert_eq!((&pod.security_context, pod.automount_service_account_token), (&plain.security_context, Some(false)));
    assert_eq!(pod.containers[0].security_context, plain.containers[0].security_context);
    assert_eq!(pod.containers[0].env.clone().unwrap()[0].name, "NCCL_DEBUG");
}
