//! What a pool's replicas are made of, checked: the `validate` step.
//! Parses quantities once; knows no pod.

use std::collections::BTreeMap;

use easel_crds::planner::Invalid;
use easel_crds::{GpuPool, GpuPoolSpec, PodOverrides, Precision, QuantityError, Verification};
use k8s_openapi::api::core::v1::Toleration;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub pool: String,
    pub devices: Devices,
    /// For models, bytes.
    pub memory: u64,
    /// For models that wait in main memory, bytes; 0 where there is no such tier.
    pub host_cache: u64,
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
    pub overrides: PodOverrides,
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
    Extended {
        resource: String,
        count: u32,
    },
    /// Of dynamic resource allocation.
    Class {
        name: String,
        count: u32,
        /// CEL expressions.
        selectors: Vec<String>,
    },
}

impl Devices {
    /// Whether they have memory of their own.
    pub(super) fn is_cpu(&self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Extended { .. } | Self::Class { .. } => false,
        }
    }
}

impl TryFrom<&GpuPool> for Shape {
    type Error = Invalid;

    fn try_from(pool: &GpuPool) -> Result<Self, Invalid> {
        let GpuPoolSpec {
            devices,
            device_class_name,
            device_selectors,
            devices_per_replica,
            memory,
            host_cache,
            relative_speed: _,
            cpu,
            price: _,
            capacity_type: _,
            limits: _,
            overcommit: _,
            warm_spares: _,
            precision,
            node_selector,
            tolerations,
            cache,
            verification,
            image,
            pod_overrides,
        } = &pool.spec;
        let count = *devices_per_replica;
        let devices = read_devices(devices.as_deref(), device_class_name.as_deref(), count, device_selectors)?;
        let named = |field| move |source: QuantityError| Invalid::Quantity { field, source };
        let milli = cpu.milli_value().map_err(named("spec.cpu"))?;
        let memory = memory.value().map_err(named("spec.memory"))?;
        let host_cache = host_cache.as_ref().map(easel_crds::Quantity::value).transpose();
        // Without memory of their own they have no host tier; the schema refuses it, and an older one let it through.
        let host_cache = host_cache.map_err(named("spec.hostCache"))?.filter(|_| !devices.is_cpu()).unwrap_or(0);
        Ok(Self {
            pool: pool.metadata.name.clone().ok_or(Invalid::Unnamed("name"))?,
            memory,
            host_cache,
            cpu_milli: u64::try_from(milli).unwrap_or(u64::MAX),
            precision: precision.unwrap_or(match devices {
                Devices::Cpu => Precision::F32,
                Devices::Extended { .. } | Devices::Class { .. } => Precision::Bf16,
            }),
            devices,
            node_selector: node_selector.clone(),
            tolerations: tolerations.clone(),
            cache: cache.as_ref().map_or(Ok(Cache { size: memory, place: CachePlace::Replica }), read_cache)?,
            verification_keys: verification.as_ref().map(keys).unwrap_or_default(),
            image: image.clone(),
            overrides: pod_overrides.clone(),
        })
    }
}

fn read_devices(
    devices: Option<&str>,
    class: Option<&str>,
    count: u32,
    selectors: &[String],
) -> Result<Devices, Invalid> {
    match (devices, class) {
        (Some("cpu"), None) => Ok(Devices::Cpu),
        (Some(resource), None) => Ok(Devices::Extended { resource: resource.to_owned(), count }),
        (None, Some(name)) => Ok(Devices::Class { name: name.to_owned(), count, selectors: selectors.to_vec() }),
        (None, None) | (Some(_), Some(_)) => Err(Invalid::Devices),
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
