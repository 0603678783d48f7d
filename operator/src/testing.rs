//! Objects for tests, as a user would write them with everything that may be left out left out.
//! Compiled for tests only.

use std::sync::Arc;

use easel_api::engine::{self, Generation, MemoryReport, ModelReport, ModelState, Report};
use easel_crds::{CheckpointStatus, GpuPool, ImageModel, ImageModelStatus, ImageRoute};
use easel_planner::PoolName;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::index::{Observed, ObservedPod};

pub(crate) const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

pub(crate) fn pool(name: &str) -> GpuPool {
    read(json!({
        "apiVersion": "easel.dev/v1alpha1", "kind": "GpuPool",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"devices": "cpu", "memory": "2Gi", "cpu": "1", "price": {"usdPerHour": "0.04"}, "limits": {"replicas": 4}}
    }))
}

pub(crate) fn model(namespace: &str, name: &str) -> ImageModel {
    read(json!({
        "apiVersion": "easel.dev/v1alpha1", "kind": "ImageModel",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"checkpoint": {"uri": "file:///models/emoji", "digest": DIGEST}, "memory": "512Mi"}
    }))
}

pub(crate) fn route(namespace: &str, name: &str, spec: &Value) -> ImageRoute {
    read(json!({
        "apiVersion": "easel.dev/v1alpha1", "kind": "ImageRoute",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1},
        "spec": spec
    }))
}

/// The object with these fields of its spec instead of its own.
pub(crate) fn with<T: Serialize + DeserializeOwned>(object: T, spec: Value) -> T {
    changed(object, "spec", spec)
}

/// The model with a status that remembers this checkpoint.
pub(crate) fn resolved(model: ImageModel, uri: &str, digest: &str) -> ImageModel {
    let checkpoint = CheckpointStatus { uri: uri.into(), digest: Some(digest.into()), ..CheckpointStatus::default() };
    let status = ImageModelStatus { checkpoint: Some(checkpoint), ..model.status.clone().unwrap_or_default() };
    ImageModel { status: Some(status), ..model }
}

/// The object with these fields of its metadata instead of its own.
pub(crate) fn with_meta<T: Serialize + DeserializeOwned>(object: T, metadata: Value) -> T {
    changed(object, "metadata", metadata)
}

fn changed<T: Serialize + DeserializeOwned>(object: T, part: &str, fields: Value) -> T {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    value[part].as_object_mut().expect("the part is an object").extend(fields);
    read(value)
}

pub(crate) fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the object reads")
}

/// A ready pod of a pool's shared Deployment, in the operator's namespace `easel-system`.
pub(crate) fn shared_pod(name: &str, pool: &str, address: &str) -> Pod {
    read(json!({
        "metadata": {"name": name, "namespace": "easel-system", "uid": format!("uid-{name}"), "labels": {
            "app.kubernetes.io/managed-by": "easel", "easel.dev/pool": pool,
            "easel.dev/workload": format!("easel-pool-{pool}"), "easel.dev/template": "t1"}},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    }))
}

/// The pod with these fields in place of its own, at any depth.
pub(crate) fn changed_pod(pod: Pod, fields: &Value) -> Pod {
    let mut value = serde_json::to_value(pod).expect("a pod is JSON");
    merge(&mut value, fields);
    read(value)
}

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

/// The Deployment of a pool, whose template has the digest `t1`.
pub(crate) fn shared_deployment(pool: &str) -> Deployment {
    let labels = json!({"easel.dev/template": "t1"});
    read(json!({
        "metadata": {"name": format!("easel-pool-{pool}"), "namespace": "easel-system", "resourceVersion": "1"},
        "spec": {"selector": {}, "template": {"metadata": {"labels": labels}}}
    }))
}

/// A pod's report of models, each in a state.
pub(crate) fn report(term: u64, sequence: u64, models: &[(&str, ModelState)]) -> Report {
    let model = |(id, state): &(&str, ModelState)| ModelReport {
        id: engine::ModelId((*id).to_owned()),
        digest: DIGEST.into(),
        state: state.clone(),
        step_ms: Some(50.0),
        load_ms: None,
        tier: None,
        moving_to: None,
        bytes: engine::TierBytes::default(),
        load_times: engine::LoadTimes::default(),
        awaited: 0,
        tasks: Vec::new(),
        step_times: Vec::new(),
        adapters: Vec::new(),
    };
    Report {
        generation: Generation { term, sequence },
        models: models.iter().map(model).collect(),
        waiting: 1,
        running: 2,
        left_ms: 0,
        running_left_ms: 0,
        queue_limit: 8,
        draining: false,
        device: "cpu".into(),
        memory: MemoryReport::default(),
    }
}

/// What exists: pools, models and shared pods of pool `cpu` with their reports.
pub(crate) fn observed(pools: &[GpuPool], models: &[ImageModel], pods: &[(Pod, Option<Report>)]) -> Observed {
    let mut observed = Observed { complete: true, ..Observed::default() };
    for pool in pools {
        let name = pool.metadata.name.clone().expect("the pool has a name");
        let deployment = shared_deployment(&name);
        observed.deployments.insert(("easel-system".into(), format!("easel-pool-{name}")), Arc::new(deployment));
        observed.pools.insert(PoolName::new(name), Arc::new(pool.clone()));
    }
    for model in models {
        let id = easel_crds::planner::model_id(model).expect("the model has a name");
        observed.models.insert(id, Arc::new(model.clone()));
    }
    for (pod, report) in pods {
        let (id, pod) = ObservedPod::parse(pod, "easel-system").expect("the pod is ours");
        if let Some(report) = report {
            observed.reports.insert(id.clone(), Arc::new(report.clone()));
        }
        observed.pods.insert(id, Arc::new(pod));
    }
    observed
}
