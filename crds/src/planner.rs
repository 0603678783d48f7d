//! Turns the kinds that users write into the values that the planner reads; operator and plugin share it.
//! Parses and refuses what one object alone can get wrong; knows no fleet.

mod route;

use std::time::Duration;

use easel_planner::snapshot::{self, Capacity, Model, Pool};
use easel_planner::units::{Bytes, MicroUsd, MicroUsdPerHour, PriceError, Speed, SpeedError};
use easel_planner::{ModelId, PoolName};

use crate::{
    CapacityType, Cost, Defaults, GpuPool, GpuPoolSpec, ImageModel, ImageModelSpec, Placement, PodOverrides,
    PoolLimits, Price, QuantityError, Sampler, Slo,
};

/// What is wrong with one object by itself. The CRD's schema refuses most of it; what an older schema let through, or
/// what a schema can't say, comes out here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the object has no {0}")]
    Unnamed(&'static str),
    #[error("{field}: {source}")]
    Quantity { field: &'static str, source: QuantityError },
    #[error("{field} must be more than 0")]
    Zero { field: &'static str },
    #[error("{field}: {source}")]
    Price { field: &'static str, source: PriceError },
    #[error("{field}: {source}")]
    Speed { field: &'static str, source: SpeedError },
    #[error("name what a replica runs on once: spec.devices or spec.deviceClassName")]
    Devices,
    #[error("spec.podOverrides must not set '{0}': it is the operator's, or would loosen what the pod may do")]
    Override(String),
    #[error("{field} of '{name}' must be more than 0, such as 800ms or 5s")]
    Time { field: &'static str, name: String },
    #[error("spec.defaultClass '{0}' is none of spec.classes; name one of them, or leave it out")]
    DefaultClass(String),
    #[error("spec.backends has none with a weight above 0, so nobody would answer")]
    NoBackend,
    #[error("spec.slo of class '{class}': latency must be more than 0, such as 800ms or 5s")]
    Latency { class: String },
}

/// The pool's name in the planner.
pub fn pool_name(pool: &GpuPool) -> Result<PoolName, Invalid> {
    pool.metadata.name.as_deref().map(PoolName::new).ok_or(Invalid::Unnamed("name"))
}

/// The model's `namespace/name` in the planner.
pub fn model_id(model: &ImageModel) -> Result<ModelId, Invalid> {
    let namespace = model.metadata.namespace.as_deref().ok_or(Invalid::Unnamed("namespace"))?;
    let name = model.metadata.name.as_deref().ok_or(Invalid::Unnamed("name"))?;
    Ok(ModelId::new(format!("{namespace}/{name}")))
}

pub use route::route_id;

impl TryFrom<&GpuPool> for Pool {
    type Error = Invalid;

    fn try_from(pool: &GpuPool) -> Result<Self, Invalid> {
        let GpuPoolSpec {
            devices,
            device_class_name,
            device_selectors: _,
            devices_per_replica: _,
            memory,
            host_cache,
            relative_speed,
            cpu,
            price: Price { usd_per_hour },
            capacity_type,
            limits: PoolLimits { replicas, usd_per_hour: max_usd_per_hour },
            overcommit,
            warm_spares,
            precision: _,
            node_selector: _,
            tolerations: _,
            cache,
            verification: _,
            image: _,
            pod_overrides,
        } = &pool.spec;
        check_pods(devices.is_some(), device_class_name.is_some(), pod_overrides)?;
        // The planner does not count cores, but a pool whose pods can't be made is no pool.
        positive("spec.cpu", cpu)?;
        cache.as_ref().map(|cache| positive("spec.cache.size", &cache.size)).transpose()?;
        let max_cost = max_usd_per_hour.as_deref().map(|text| price("spec.limits.usdPerHour", text));
        Ok(Self {
            price: price("spec.price.usdPerHour", usd_per_hour)?,
            capacity: match capacity_type {
                CapacityType::OnDemand => Capacity::OnDemand,
                CapacityType::Spot => Capacity::Spot,
            },
            memory: Bytes(positive("spec.memory", memory)?),
            host_cache: Bytes(host_cache.as_ref().map_or(Ok(0), |size| positive("spec.hostCache", size))?),
            relative_speed: Speed::from_decimal(relative_speed)
                .map_err(|source| Invalid::Speed { field: "spec.relativeSpeed", source })?,
            overcommit: *overcommit,
            warm_spares: *warm_spares,
            max_replicas: *replicas,
            max_cost: max_cost.transpose()?,
            leaving: pool.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// What the planner does not read, but a pool whose pods can't be made is no pool.
fn check_pods(devices: bool, class: bool, overrides: &PodOverrides) -> Result<(), Invalid> {
    if devices == class {
        return Err(Invalid::Devices);
    }
    overrides.forbidden().map_or(Ok(()), |key| Err(Invalid::Override(key.to_owned())))
}

impl TryFrom<&ImageModel> for Model {
    type Error = Invalid;

    fn try_from(model: &ImageModel) -> Result<Self, Invalid> {
        let ImageModelSpec {
            checkpoint: _,
            adapters: _,
            memory,
            defaults,
            limits: _,
            placement,
            pools,
            replicas,
            slo,
            cost: Cost { max_usd_per_image, max_usd_per_hour },
        } = &model.spec;
        let per_image = max_usd_per_image.as_deref().map(|text| dollars("spec.cost.maxUsdPerImage", text));
        let per_hour = max_usd_per_hour.as_deref().map(|text| price("spec.cost.maxUsdPerHour", text));
        Ok(Self {
            // A tag that was never resolved has no digest: the model has its place, and no pod is told of it.
            digest: model.in_effect().map(|(_, digest)| digest).unwrap_or_default().to_owned(),
            memory: Bytes(positive("spec.memory", memory)?),
            placement: match placement {
                Placement::Shared => snapshot::Placement::Shared,
                Placement::Dedicated => snapshot::Placement::Dedicated,
            },
            pools: pools.iter().map(PoolName::new).collect(),
            replicas: replicas.min,
            min_replicas: replicas.min,
            max_replicas: replicas.max,
            max_per_image: per_image.transpose()?,
            max_per_hour: per_hour.transpose()?,
            default_steps: model_calls(defaults),
            slos: slo.iter().map(promise).collect::<Result<_, _>>()?,
            leaving: model.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// Of a picture by the defaults. A test of the operator holds it to what pods count.
pub fn model_calls(defaults: &Defaults) -> u32 {
    match defaults.sampler {
        Sampler::Heun => defaults.steps.saturating_mul(2).saturating_sub(1),
        Sampler::Ddim
        | Sampler::Ddpm
        | Sampler::Euler
        | Sampler::EulerAncestral
        | Sampler::Dpmpp2m
        | Sampler::Dpmpp2mKarras
        | Sampler::Dpmpp2mSde
        | Sampler::UniPc
        | Sampler::Lcm
        | Sampler::FlowMatchEuler => defaults.steps,
    }
}

fn positive(field: &'static str, quantity: &crate::Quantity) -> Result<u64, Invalid> {
    match quantity.value() {
        Ok(0) => Err(Invalid::Zero { field }),
        Ok(value) => Ok(value),
        Err(source) => Err(Invalid::Quantity { field, source }),
    }
}

fn price(field: &'static str, text: &str) -> Result<MicroUsdPerHour, Invalid> {
    MicroUsdPerHour::from_dollars(text).map_err(|source| Invalid::Price { field, source })
}

fn dollars(field: &'static str, text: &str) -> Result<MicroUsd, Invalid> {
    MicroUsd::from_dollars(text).map_err(|source| Invalid::Price { field, source })
}

fn promise(slo: &Slo) -> Result<snapshot::Slo, Invalid> {
    let Slo { class, latency, percentile } = slo;
    // The conversion drops the sign.
    if latency.is_negative() || Duration::from(*latency).is_zero() {
        return Err(Invalid::Latency { class: class.clone() });
    }
    Ok(snapshot::Slo { class: class.clone(), latency: Duration::from(*latency), percentile: *percentile })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(spec: &Value) -> GpuPool {
        let mut full = json!({"devices": "cpu", "memory": "2Gi", "cpu": "500m", "price": {"usdPerHour": "0.04"},
            "limits": {"replicas": 3, "usdPerHour": "0.10"}});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "easel.dev/v1alpha1", "kind": "GpuPool",
            "metadata": {"name": "cpu"}, "spec": full}))
        .unwrap()
    }

    fn model(spec: &Value) -> ImageModel {
        let mut full = json!({"checkpoint": {"uri": "file:///models/emoji", "digest": "sha256:0"}, "memory": "1.5Gi"});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "easel.dev/v1alpha1", "kind": "ImageModel",
            "metadata": {"name": "emoji", "namespace": "art"}, "spec": full}))
        .unwrap()
    }

    #[test]
    fn a_pool_becomes_the_planners_pool() {
        let expected = Pool {
            price: MicroUsdPerHour::new(40_000),
            capacity: Capacity::Spot,
            memory: Bytes(2 << 30),
            host_cache: Bytes(0),
            relative_speed: Speed::from_decimal("0.5").unwrap(),
            overcommit: 1,
            warm_spares: 1,
            max_replicas: 3,
            max_cost: Some(MicroUsdPerHour::new(100_000)),
            leaving: false,
        };
        assert_eq!(
            Pool::try_from(&pool(&json!({"capacityType": "Spot", "relativeSpeed": "0.5", "warmSpares": 1}))),
            Ok(expected)
        );
    }

    #[test]
    fn a_model_becomes_the_planners_model() {
        let written = model(&json!({"placement": "Dedicated", "pools": ["a", "b"], "replicas": {"min": 2},
            "slo": [{"class": "live", "latency": "1500ms", "percentile": 90}],
            "cost": {"maxUsdPerImage": "0.002", "maxUsdPerHour": "5"}}));
        let read = Model::try_from(&written).unwrap();
        assert_eq!(model_id(&written), Ok(ModelId::new("art/emoji")));
        assert_eq!((read.memory, read.min_replicas, read.default_steps), (Bytes(3 << 29), 2, 30));
        assert_eq!(read.pools, [PoolName::new("a"), PoolName::new("b")]);
        assert_eq!(
            read.slos,
            [snapshot::Slo { class: "live".into(), latency: Duration::from_millis(1500), percentile: 90 }]
        );
        assert_eq!(read.max_per_image, Some(MicroUsd::new(2_000)));
        assert_eq!(read.max_per_hour, Some(MicroUsdPerHour::new(5_000_000)));
    }

    #[test]
    fn what_a_pool_can_get_wrong_alone_is_refused_with_the_field() {
        for (spec, message) in [
            (json!({"memory": "2GiB"}), "spec.memory: '2GiB' is not a quantity"),
            (json!({"memory": "0"}), "spec.memory must be more than 0"),
            (json!({"cpu": "0"}), "spec.cpu must be more than 0"),
            (json!({"price": {"usdPerHour": "free"}}), "spec.price.usdPerHour: 'free' is not a price"),
            (json!({"limits": {"replicas": 1, "usdPerHour": "-1"}}), "spec.limits.usdPerHour: '-1' is not a price"),
            (json!({"hostCache": "0"}), "spec.hostCache must be more than 0"),
            (json!({"relativeSpeed": "0"}), "spec.relativeSpeed: '0' is not a speed"),
            (json!({"deviceClassName": "gpu.nvidia.com"}), "name what a replica runs on once"),
            (
                json!({"podOverrides": {"labels": {"easel.dev/pool": "x"}}}),
                "spec.podOverrides must not set 'easel.dev/pool'",
            ),
        ] {
            let error = Pool::try_from(&pool(&spec)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn what_a_model_can_get_wrong_alone_is_refused_with_the_field() {
        for (spec, message) in [
            (json!({"cost": {"maxUsdPerImage": "much"}}), "spec.cost.maxUsdPerImage: 'much' is not a price"),
            (json!({"memory": "much"}), "spec.memory: 'much' is not a quantity"),
            (json!({"slo": [{"class": "live", "latency": "0s"}]}), "spec.slo of class 'live': latency must be more"),
            (json!({"slo": [{"class": "live", "latency": "-5s"}]}), "spec.slo of class 'live': latency must be more"),
        ] {
            let error = Model::try_from(&model(&spec)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
