//! Every CEL rule refuses what it shall, with its sentence, and lets its neighbour through.
//! Evaluated as an API server does, without one.

#[path = "cel/pool.rs"]
mod pool;
#[path = "cel/route.rs"]
mod route;

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

/// A Dedicated model with this checkpoint.
fn checkpoint(fields: &Value) -> Value {
    let mut model = with(model(), &json!({"spec": {"placement": "Dedicated"}}));
    model["spec"]["checkpoint"] = fields.clone();
    model
}

fn sha(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn check_checkpoints(cases: &[Case]) {
    for (fields, words) in cases {
        check::<ImageModel>(&checkpoint(fields), &[(json!({}), *words)], None);
    }
}

#[test]
fn every_form_of_a_uri_passes_and_what_is_none_is_refused_with_its_sentence() {
    let place = "uri must start with file:/// (a folder of the inference image), pvc:// (CLAIM/FOLDER), image:// (an \
                 image volume), oci:// (REGISTRY/REPOSITORY) or s3:// (BUCKET/PREFIX)";
    let claim = "a pvc uri is pvc://CLAIM/FOLDER, where CLAIM is the name of a PersistentVolumeClaim";
    let reference = "an oci or image uri is REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], such as \
                     oci://registry.example/models/emoji@sha256:…";
    let bucket = "an s3 uri is s3://BUCKET/PREFIX";
    let dots = "uri must not contain . or .. as a folder";
    let cases = [
        ("file:///models/emoji", None),
        ("file:///models/v1..2", None),
        ("pvc://weights/sdxl/v1.0", None),
        ("pvc://weights", None),
        ("oci://registry.example:5000/team/sd-1.5_x:v1.0", None),
        ("s3://my.bucket/models/sdxl", None),
        ("s3://bucket", None),
        ("http://registry/emoji", Some(place)),
        ("file://models", Some(place)),
        ("pvc:///sdxl", Some(claim)),
        ("pvc://Weights/sdxl", Some(claim)),
        ("oci://registry.example", Some(reference)),
        ("oci://registry.example/Upper", Some(reference)),
        ("oci://me:pw@registry.example/m", Some(reference)),
        ("s3://Bucket/m", Some(bucket)),
        ("s3://bucket/m?x=1", Some(bucket)),
        ("file:///models/../etc", Some(dots)),
        ("pvc://weights/./sdxl", Some(dots)),
        ("s3://bucket/..", Some(dots)),
    ];
    let cases: Vec<Case> = cases.iter().map(|(uri, words)| (json!({"uri": uri, "digest": sha('a')}), *words)).collect();
    check_checkpoints(&cases);
}

#[test]
fn a_checkpoint_that_is_not_pinned_once_is_refused() {
    let loose = "a checkpoint must be pinned: write its digest (in digest, or as @sha256:… in an oci uri), or say \
                 resolveTag: true to pin the tag when it is applied";
    let tag = "resolveTag is for an oci:// uri with a tag and without a digest";
    let twice = "the uri carries the digest already; leave digest out";
    let image = "an image:// checkpoint needs both: @sha256:… of the image in the uri, so that the node fetches no \
                 other, and digest of the files in it";
    let hex = "digest must be sha256: and 64 hexadecimal digits in lower case";
    let pinned = |scheme: &str| format!("{scheme}://r.example/m:v1@{}", sha('b'));
    check_checkpoints(&[
        (json!({"uri": pinned("oci")}), None),
        (json!({"uri": "oci://r.example/m:v1", "digest": sha('a')}), None),
        (json!({"uri": "oci://r.example/m:v1", "resolveTag": true}), None),
        (json!({"uri": pinned("image"), "digest": sha('a')}), None),
        (json!({"uri": "oci://r.example/m:v1"}), Some(loose)),
        (json!({"uri": "oci://r.example/m:v1", "resolveTag": false}), Some(loose)),
        (json!({"uri": "s3://bucket/m"}), Some(loose)),
        (json!({"uri": "s3://bucket/m", "digest": sha('a'), "resolveTag": true}), Some(tag)),
        (json!({"uri": "oci://r.example/m:v1", "digest": sha('a'), "resolveTag": true}), Some(tag)),
        (json!({"uri": pinned("oci"), "digest": sha('a')}), Some(twice)),
        (json!({"uri": "image://r.example/m:v1", "digest": sha('a')}), Some(image)),
        (json!({"uri": pinned("image")}), Some(image)),
        (json!({"uri": "s3://bucket/m", "digest": "sha256:0"}), Some(hex)),
        (json!({"uri": "s3://bucket/m", "digest": sha('A')}), Some(hex)),
    ]);
}

#[test]
fn what_does_not_belong_to_a_scheme_is_refused() {
    let secret = "secretRef is for oci:// and s3:// checkpoints, which the pod fetches itself";
    let url = "endpoint is a URL such as https://s3.example:9000";
    let plain = "plainHttp is for oci:// checkpoints; write http:// in the endpoint of an s3:// one";
    let beside = "the signatures of an oci:// checkpoint lie beside it in the registry; push them there";
    let of = |uri: &str, fields: Value| with(json!({"uri": uri, "digest": sha('a')}), &fields);
    let (oci, s3, file) = ("oci://r.example/m", "s3://bucket/m", "file:///models/m");
    check_checkpoints(&[
        (of(oci, json!({"secretRef": {"name": "s"}, "plainHttp": true})), None),
        (
            of(
                s3,
                json!({"secretRef": {"name": "s"}, "endpoint": "http://s3:9000", "region": "eu-1", "signature": "x"}),
            ),
            None,
        ),
        (of(file, json!({"signature": "x", "plainHttp": false})), None),
        (of(file, json!({"secretRef": {"name": "s"}})), Some(secret)),
        (of(oci, json!({"endpoint": "http://s3:9000"})), Some("endpoint is for s3:// checkpoints")),
        (of(s3, json!({"endpoint": "s3:9000"})), Some(url)),
        (of(s3, json!({"endpoint": "https://me:pw@s3.example"})), Some(url)),
        (of(oci, json!({"region": "eu-1"})), Some("region is for s3:// checkpoints")),
        (of(s3, json!({"plainHttp": true})), Some(plain)),
        (of(oci, json!({"signature": "x"})), Some(beside)),
    ]);
}

#[test]
fn every_rule_of_an_adapter_refuses_with_its_sentence() {
    let place = "the uri of an adapter must start with oci:// (REGISTRY/REPOSITORY), s3:// (BUCKET/PREFIX) or file:/// \
                 (a folder of the inference image)";
    let reference = "an oci uri is REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], such as \
                     oci://registry.example/adapters/ink@sha256:…";
    let once = "an adapter must be pinned once: in digest, or as @sha256:… in an oci uri";
    let plain = "plainHttp is for oci:// adapters; write http:// in the endpoint of an s3:// one";
    let beside = "the signatures of an oci:// adapter lie beside it in the registry; push them there";
    let secret = "secretRef is for oci:// and s3:// adapters, which the pod fetches itself";
    let (oci, s3, file) = ("oci://r.example/ink", "s3://bucket/ink", "file:///models/ink");
    let pinned = format!("{oci}:v1@{}", sha('a'));
    let of = |uri: &str, fields: Value| with(json!({"name": "ink", "uri": uri, "digest": sha('a')}), &fields);
    let cases: Vec<Case> = [
        (of(oci, json!({"plainHttp": true, "secretRef": {"name": "s"}})), None),
        (of(s3, json!({"endpoint": "http://s3:9000", "region": "eu-1"})), None),
        (of(file, json!({"signature": "x"})), None),
        (json!({"name": "ink", "uri": pinned}), None),
        (json!({"name": "ink", "uri": pinned, "digest": sha('a')}), Some(once)),
        (json!({"name": "ink", "uri": oci}), Some(once)),
        (of("pvc://claim/ink", json!({})), Some(place)),
        (of("oci://r.example/Upper", json!({})), Some(reference)),
        (of("s3://Bucket/ink", json!({})), Some("an s3 uri is s3://BUCKET/PREFIX")),
        (of("file:///models/../etc", json!({})), Some("uri must not contain . or .. as a folder")),
        (of(file, json!({"secretRef": {"name": "s"}})), Some(secret)),
        (of(oci, json!({"region": "eu-1"})), Some("endpoint and region are for s3:// adapters")),
        (of(s3, json!({"plainHttp": true})), Some(plain)),
        (of(oci, json!({"signature": "x"})), Some(beside)),
    ]
    .map(|(adapter, words)| (json!({"spec": {"adapters": [adapter]}}), words))
    .to_vec();
    check::<ImageModel>(&model(), &cases, None);
}

#[test]
fn what_is_mounted_when_a_pod_starts_needs_dedicated_pods() {
    let shared = |fields: Value| with(checkpoint(&fields), &json!({"spec": {"placement": "Shared"}}));
    let claim = "a pvc:// checkpoint needs placement: Dedicated, because a volume claim is only visible in the model's \
                 own namespace";
    let image = "an image:// checkpoint needs placement: Dedicated, because an image is mounted when a pod starts";
    let reference = format!("image://r.example/m@{}", sha('b'));
    check::<ImageModel>(&shared(json!({"uri": "pvc://w/m", "digest": sha('a')})), &[(json!({}), Some(claim))], None);
    check::<ImageModel>(&shared(json!({"uri": reference, "digest": sha('a')})), &[(json!({}), Some(image))], None);
}

#[test]
fn a_cache_is_in_one_place_and_keys_are_keys() {
    let both = "name hostPath or claimName, not both";
    let key = "a public key is PEM and begins with -----BEGIN PUBLIC KEY-----, as in the cosign.pub that cosign writes";
    let cache = |fields: Value| json!({"spec": {"cache": fields}});
    let keys = |keys: &[&str]| json!({"spec": {"verification": {"publicKeys": keys}}});
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";
    let cases: &[Case] = &[
        (cache(json!({"size": "50Gi"})), None),
        (cache(json!({"size": "50Gi", "hostPath": "/mnt/easel"})), None),
        (cache(json!({"size": "50Gi", "hostPath": "/mnt/easel", "claimName": "c"})), Some(both)),
        (cache(json!({"size": "0"})), Some("size must be more than 0 bytes, such as 50Gi")),
        (keys(&[pem]), None),
        (keys(&[pem, "MFkw"]), Some(key)),
    ];
    check::<GpuPool>(&pool(), cases, None);
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
        (spec(json!({"cost": {"maxUsdPerImage": "0.002", "maxUsdPerHour": "5"}})), None),
        (
            spec(json!({"cost": {"maxUsdPerImage": "0.0"}})),
            Some("cost.maxUsdPerImage must be more than 0, such as 0.002; park a model with replicas.min: 0"),
        ),
        (
            spec(json!({"cost": {"maxUsdPerHour": "0"}})),
            Some("cost.maxUsdPerHour must be more than 0, such as 12.50; park a model with replicas.min: 0"),
        ),
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
