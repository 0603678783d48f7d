//! Easel's custom resources: kinds, defaults, CEL rules, conditions and their reasons.
//! Knows the schema that an API server enforces; knows no client and makes no decision.

// The derive of kube puts each spec into a private module of its own as well.
#![allow(unreachable_pub)]

mod adapter;
pub mod condition;
pub mod gpu_pool;
pub mod image_model;
pub mod image_route;
#[cfg(feature = "planner")]
pub mod planner;
mod quantity;
pub mod refusals;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

pub use adapter::Adapter;
pub use gpu_pool::{
    Cache, CapacityType, EnvOverride, GpuPool, GpuPoolSpec, GpuPoolStatus, PodOverrides, PoolLimits, Precision, Price,
    Verification,
};
pub use image_model::{
    Checkpoint, CheckpointStatus, Cost, Defaults, ImageModel, ImageModelSpec, ImageModelStatus, Limits, Placement,
    PoolReplicas, Replicas, Sampler, SecretRef, Slo,
};
pub use image_route::{ImageRoute, ImageRouteSpec, ImageRouteStatus};
pub use quantity::{Quantity, QuantityError};

/// The API group of every kind.
pub const GROUP: &str = "easel.dev";

/// Every `CustomResourceDefinition`, in the order in which `crdgen` writes them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![structural(&GpuPool::crd()), structural(&ImageModel::crd()), structural(&ImageRoute::crd())]
}

/// The definition without the number formats that an API server does not know (`uint32`) and would warn of at every
/// apply; the bounds stay.
fn structural(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition is plain JSON");
    drop_unsigned_formats(&mut value);
    serde_json::from_value(value).expect("a definition without formats is a definition")
}

fn drop_unsigned_formats(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(drop_unsigned_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_unsigned_formats),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
