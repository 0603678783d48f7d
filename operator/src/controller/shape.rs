//! What a pool's replicas are made of, checked: the `validate` step.
//! Parses quantities once; knows no pod.

use std::collections::BTreeMap;

use easel_crds::planner::Invalid;
use easel_crds::{GpuPool, GpuPoolSpec, Precision, QuantityError, Verification};
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
    pub cache: Cache,
    /// PEM public keys, one of which must have signed a checkpoint; empty: no signature is asked for.
    pub verification_keys: String,
    /// Instead of the operator's.
    pub image: Option<String>,
}

/// Where a replica keeps what it has fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    /// Bytes.
    pub size: u64,
    pub place: CachePlace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CachePlace {
    /// By itself, as long as it lives.
    Replica,
    /// A folder of the node.
    Node(String),
    /// A claim of the operator's namespace, which only Shared replicas see.
    Claim(String),
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
            device_class_name: _,
            device_selectors: _,
            devices_per_replica,
            memory,
            host_cache: _,
            relative_speed: _,
            cpu,
            price: _,
            capacity_type: _,
            limits: _,
            warm_spares: _,
            precision,
            node_selector,
            tolerations,
            cache,
            verification,
            image,
            pod_overrides: _,
        } = &pool.spec;
        let devices = match devices.as_deref() {
            None => return Err(Invalid::Devices),
            Some("cpu") => Devices::Cpu,
            Some(resource) => Devices::Extended { resource: resource.to_owned(), count: *devices_per_replica },
        };
        let named = |field| move |source: QuantityError| Invalid::Quantity { field, source };
        let milli = cpu.milli_value().map_err(named("spec.cpu"))?;
        let memory = memory.value().map_err(named("spec.memory"))?;
        Ok(Self {
            pool: pool.metadata.name.clone().ok_or(Invalid::Unnamed("name"))?,
            memory,
            cpu_milli: u64::try_from(milli).unwrap_or(u64::MAX),
            precision: precision.unwrap_or(match devices {
                Devices::Cpu => Precision::F32,
                Devices::Extended { .. } => Precision::Bf16,
            }),
            devices,
            node_selector: node_selector.clone(),
            tolerations: tolerations.clone(),
            cache: cache.as_ref().map_or(Ok(Cache { size: memory, place: CachePlace::Replica }), read_cache)?,
            verification_keys: verification.as_ref().map(keys).unwrap_or_default(),
            image: image.clone(),
        })
    }
}

fn read_cache(cache: &easel_crds::Cache) -> Result<Cache, Invalid> {
    let easel_crds::Cache { size, host_path, claim_name } = cache;
    let size = size.value().map_err(|source| Invalid::Quantity { field: "spec.cache.size", source })?;
    let place = match (host_path, claim_name) {
        (Some(path), _) => CachePlace::Node(path.clone()),
        (None, Some(claim)) => CachePlace::Claim(claim.clone()),
        (None, None) => CachePlace::Replica,
    };
    Ok(Cache { size, place })
}

/// One PEM text of all.
fn keys(verification: &Verification) -> String {
    let Verification { public_keys } = verification;
    public_keys.iter().flat_map(|key| [key.trim(), "\n"]).collect()
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

    #[test]
    fn a_cache_that_is_left_out_is_the_replicas_own_and_as_large_as_its_memory() {
        let of = |cache| Shape::try_from(&with(pool("p"), cache)).unwrap().cache;
        let cache = |size, place| Cache { size, place };
        assert_eq!(of(json!({})), cache(2 << 30, CachePlace::Replica));
        for (fields, place) in [
            (json!({"size": "1Gi"}), CachePlace::Replica),
            (json!({"size": "1Gi", "hostPath": "/mnt/easel"}), CachePlace::Node("/mnt/easel".into())),
            (json!({"size": "1Gi", "claimName": "c"}), CachePlace::Claim("c".into())),
        ] {
            assert_eq!(of(json!({"cache": fields})), cache(1 << 30, place));
        }
    }

    #[test]
    fn keys_are_joined_to_one_text() {
        let shape = Shape::try_from(&with(pool("p"), json!({"verification": {"publicKeys": ["a\n", "b"]}}))).unwrap();
        assert_eq!(shape.verification_keys, "a\nb\n");
    }
}
