//! Every CEL rule refuses what it shall, with its sentence, and lets its neighbour through.
//! Evaluated as an API server does, without one.

use easel_crds::{GpuPool, ImageModel};
use kube::CustomResourceExt;
use kube::core::cel::{ValidationErrors, Validator};
use serde_json::{Value, json};

/// What is changed, and what is said; no words: it passes.
type Case = (Value, Option<&'static str>);

fn pool() -> Value {
    json!({"apiVersion": "easel.dev/v1alpha1", "kind": "GpuPool", "metadata": {"name": "cpu"}, "spec": {
        "devices": "cpu", "devicesPerReplica": 1, "memory": "2Gi", "cpu": "1", "price": {"usdPerHour": "0.04"},
        "capacityType": "OnDemand", "limits": {"replicas": 4}}})
}

fn model() -> Value {
    json!({"apiVersion": "easel.dev/v1alpha1", "kind": "ImageModel", "metadata": {"name": "emoji", "namespace": "art"},
        "spec": {
            "checkpoint": {"uri": "file:///models/emoji", "digest": format!("sha256:{}", "0".repeat(64))},
            "memory": "512Mi", "placement": "Shared", "replicas": {"min": 1},
            "defaults": {"steps": 30, "guidanceScale": 7.5, "size": "512x512", "sampler": "DDIM"},
            "limits": {"maxSteps": 100, "maxPixels": 1_048_576, "maxImages": 10}}})
}

/// The object with these fields in place of its own, at any depth.
fn with(mut object: Value, fields: &Value) -> Value {
    fn merge(into: &mut Value, fields: &Value) {
        match (into, fields) {
            (Value::Object(into), Value::Object(fields)) => {
                for (key, field) in fields {
                    merge(into.entry(key.clone()).or_insert(Value::Null), field);
                }
            }
            (into, field) => *into = field.clone(),
        }
    }
    merge(&mut object, fields);
    object
}

fn validate<K: CustomResourceExt>(object: &Value, old: Option<&Value>) -> Result<(), ValidationErrors> {
    let version = K::crd().spec.versions.remove(0);
    let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a kind has a schema");
    let schema = serde_json::to_value(schema).expect("a schema is JSON");
    Validator::new().validate(&schema, object, old)
}

fn check<K: CustomResourceExt>(base: &Value, cases: &[Case], old: Option<&Value>) {
    for (fields, words) in cases {
        let result = validate::<K>(&with(base.clone(), fields), old);
        match (words, result) {
            (None, result) => assert!(result.is_ok(), "{fields}: {result:?}"),
            (Some(words), Ok(())) => panic!("{fields} was let through; expected: {words}"),
            (Some(words), Err(errors)) => {
                let messages: Vec<&str> = errors.as_slice().iter().map(|error| error.message.as_str()).collect();
                assert_eq!(messages, [*words], "{fields}");
            }
        }
    }
}

#[test]
fn every_rule_of_a_pool_refuses_with_its_sentence() {
    let name = |length: usize| json!({"metadata": {"name": "n".repeat(length)}});
    let spec = |fields: Value| json!({"spec": fields});
    let cases: &[Case] = &[
        (json!({}), None),
        (name(40), None),
        (name(41), Some("the name of a pool has at most 40 characters: it becomes part of its pods' names")),
        (spec(json!({"devices": "nvidia.com/gpu", "devicesPerReplica": 2})), None),
        (
            spec(json!({"devicesPerReplica": 2})),
            Some("a cpu pool has devicesPerReplica 1; give a replica more cores with `cpu`"),
        ),
        (spec(json!({"precision": "bf16"})), None),
        (spec(json!({"devices": "nvidia.com/gpu", "precision": "f16"})), None),
        (
            spec(json!({"precision": "f16"})),
            Some("precision f16 is not possible on cpu (it is 100 times slower there); use f32 or bf16"),
        ),
        (spec(json!({"memory": 1024})), None),
        (spec(json!({"memory": 0})), Some("memory must be more than 0 bytes, such as 2Gi")),
        (spec(json!({"cpu": "250m"})), None),
        (spec(json!({"cpu": "0"})), Some("cpu must be more than 0 cores, such as 2 or 500m")),
    ];
    check::<GpuPool>(&pool(), cases, None);
}

#[test]
fn the_devices_of_a_pool_stay_what_they_are() {
    let words = "devices can't change while replicas exist; create another pool and move models by their `pools`";
    let cases: &[Case] =
        &[(json!({"spec": {"memory": "4Gi"}}), None), (json!({"spec": {"devices": "nvidia.com/gpu"}}), Some(words))];
    check::<GpuPool>(&pool(), cases, Some(&pool()));
}

#[test]
fn every_rule_of_a_checkpoint_refuses_with_its_sentence() {
    let uri = |uri: &str| json!({"spec": {"checkpoint": {"uri": uri}, "placement": "Dedicated"}});
    let digest = |digest: &str| json!({"spec": {"checkpoint": {"digest": digest}}});
    let place = "uri must start with file:/// (a folder of the inference image) or pvc:// (CLAIM/FOLDER of a \
                 PersistentVolumeClaim)";
    let claim = "a pvc uri is pvc://CLAIM/FOLDER, where CLAIM is the name of a PersistentVolumeClaim";
    let dots = "uri must not contain . or .. as a folder";
    let hex = "digest must be sha256: and 64 hexadecimal digits in lower case";
    let cases: &[Case] = &[
        (uri("file:///models/emoji"), None),
        (uri("oci://registry/emoji"), Some(place)),
        (uri("file://models"), Some(place)),
        (uri("pvc://weights/sdxl/v1.0"), None),
        (uri("pvc://weights"), None),
        (uri("pvc:///sdxl"), Some(claim)),
        (uri("pvc://Weights/sdxl"), Some(claim)),
        (uri("file:///models/v1..2"), None),
        (uri("file:///models/../etc"), Some(dots)),
        (uri("pvc://weights/./sdxl"), Some(dots)),
        (digest(&format!("sha256:{}", "a1".repeat(32))), None),
        (digest("sha256:0"), Some(hex)),
        (digest(&format!("sha256:{}", "A1".repeat(32))), Some(hex)),
        (
            json!({"spec": {"checkpoint": {"uri": "pvc://weights/sdxl"}}}),
            Some(
                "a pvc:// checkpoint needs placement: Dedicated, because a volume claim is only visible in the model's \
                 own namespace",
            ),
        ),
    ];
    check::<ImageModel>(&model(), cases, None);
}

#[test]
fn every_rule_of_defaults_and_limits_refuses_with_its_sentence() {
    let defaults = |fields: Value| json!({"spec": {"defaults": fields}});
    let size = "size is WIDTHxHEIGHT in pixels, both multiples of 16, such as 512x512";
    let cases: &[Case] = &[
        (defaults(json!({"steps": 100})), None),
        (defaults(json!({"steps": 101})), Some("defaults.steps must not be above limits.maxSteps")),
        (defaults(json!({"size": "1024x1024"})), None),
        (defaults(json!({"size": "1024x1040"})), Some("defaults.size has more pixels than limits.maxPixels")),
        (defaults(json!({"size": "64x96"})), None),
        (defaults(json!({"size": "63x64"})), Some(size)),
    ];
    check::<ImageModel>(&model(), cases, None);
}

#[test]
fn every_other_rule_of_a_model_refuses_with_its_sentence() {
    let spec = |fields: Value| json!({"spec": fields});
    let slo = |latency: &str| json!({"spec": {"slo": [{"class": "live", "latency": latency, "percentile": 95}]}});
    let name = |length: usize| json!({"metadata": {"name": "n".repeat(length)}});
    let cases: &[Case] = &[
        (name(40), None),
        (name(41), Some("the name of a model has at most 40 characters: it becomes part of its pods' names")),
        (spec(json!({"memory": "1.5Gi"})), None),
        (spec(json!({"memory": "0"})), Some("memory must be more than 0 bytes, such as 512Mi")),
        (spec(json!({"replicas": {"min": 2, "max": 2}})), None),
        (spec(json!({"replicas": {"min": 3, "max": 2}})), Some("replicas.min must not be above replicas.max")),
        (slo("800ms"), None),
        (slo("0s"), Some("latency must be more than 0, such as 800ms or 5s")),
    ];
    check::<ImageModel>(&model(), cases, None);
}

#[test]
fn the_placement_of_a_model_stays_what_it_is() {
    let words = "placement can't change; create another ImageModel and move clients to it";
    let cases: &[Case] = &[
        (json!({"spec": {"replicas": {"min": 0}}}), None),
        (json!({"spec": {"placement": "Dedicated"}}), Some(words)),
    ];
    check::<ImageModel>(&model(), cases, Some(&model()));
}
