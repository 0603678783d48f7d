//! What a pool's replicas are made of, checked: the `validate` step.
//! Parses quantities once; knows no pod.

use std::collections::BTreeMap;

use easel_crds::planner::Invalid;
use easel_crds::{GpuPool, GpuPoolSpec, Precision, QuantityError};
use k8s_openapi::api::core::v1::Toleration;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub pool: String,
    pub devices: Devices,
    /// For models, bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    pub precision: Precision,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    /// Instead of the operator's.
    pub image: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Devices {
    Cpu,
    Extended { resource: String, count: u32 },
}

impl TryFrom<&GpuPool> for Shape {
    type Error = Invalid;

    fn try_from(pool: &GpuPool) -> Result<Self, Invalid> {
        let GpuPoolSpec {
            devices,
            devices_per_replica,
            memory,
            cpu,
            price: _,
            capacity_type: _,
            limits: _,
            precision,
            node_selector,
            tolerations,
            image,
        } = &pool.spec;
        let devices = match devices.as_str() {
            "cpu" => Devices::Cpu,
            resource => Devices::Extended { resource: resource.to_owned(), count: *devices_per_replica },
        };
        let named = |field| move |source: QuantityError| Invalid::Quantity { field, source };
        let milli = cpu.milli_value().map_err(named("spec.cpu"))?;
        Ok(Self {
            pool: pool.metadata.name.clone().ok_or(Invalid::Unnamed("name"))?,
            memory: memory.value().map_err(named("spec.memory"))?,
            cpu_milli: u64::try_from(milli).unwrap_or(u64::MAX),
            precision: precision.unwrap_or(match devices {
                Devices::Cpu => Precision::F32,
                Devices::Extended { .. } => Precision::Bf16,
            }),
            devices,
            node_selector: node_selector.clone(),
            tolerations: tolerations.clone(),
            image: image.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{pool, with};

    #[test]
    fn a_precision_that_is_left_out_follows_from_the_device() {
        let shape = |spec| Shape::try_from(&with(pool("p"), spec)).unwrap();
        assert_eq!(shape(json!({})).precision, Precision::F32);
        let gpu = shape(json!({"devices": "nvidia.com/gpu", "devicesPerReplica": 2}));
        assert_eq!(gpu.precision, Precision::Bf16);
        assert_eq!(gpu.devices, Devices::Extended { resource: "nvidia.com/gpu".into(), count: 2 });
        assert_eq!(shape(json!({"precision": "bf16", "cpu": "500m"})).cpu_milli, 500);
    }
}
