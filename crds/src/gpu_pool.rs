//! `GpuPool`: priced capacity of one kind, from which replicas (pods) are taken.
//! Says what a replica is made of and what it costs; which models live there is the planner's affair.

mod overrides;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;
pub use overrides::{EnvOverride, PodOverrides};

/// Priced capacity of one kind: replicas of one size on one kind of device.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "easel.dev",
    version = "v1alpha1",
    kind = "GpuPool",
    plural = "gpupools",
    shortname = "gpool",
    category = "easel",
    status = "GpuPoolStatus",
    derive = "PartialEq",
    doc = "Priced capacity of one kind: replicas of one size on one kind of device.",
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name of a pool has at most 40 characters: it becomes part of its pods' names"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Devices", type_ = "string", json_path = ".status.devices"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".spec.capacityType"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Limit", type_ = "integer", json_path = ".spec.limits.replicas"),
    printcolumn(name = "USD/h", type_ = "string", json_path = ".status.usdPerHour"),
    printcolumn(name = "Models", type_ = "string", json_path = ".status.residentModels", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.devices) != has(self.deviceClassName)").message("name what a replica runs on once: devices (cpu, or an extended resource such as nvidia.com/gpu), or deviceClassName (a device class of dynamic resource allocation)"),
    validation = Rule::new("!has(self.devices) || self.devices != 'cpu' || self.devicesPerReplica == 1").message("a cpu pool has devicesPerReplica 1; give a replica more cores with `cpu`"),
    validation = Rule::new("!has(self.devices) || self.devices != 'cpu' || !has(self.precision) || self.precision != 'f16'").message("precision f16 is not possible on cpu (it is 100 times slower there); use f32 or bf16"),
    validation = Rule::new("!has(self.devices) || self.devices != 'cpu' || !has(self.hostCache)").message("hostCache is for devices with memory of their own; on cpu, models are in main memory already: leave it out and raise memory"),
    validation = Rule::new("!has(self.deviceSelectors) || has(self.deviceClassName)").message("deviceSelectors narrows a deviceClassName; choose nodes of other devices with nodeSelector"),
    validation = Rule::new("self.warmSpares <= self.limits.replicas").message("warmSpares must not be above limits.replicas, of which they are a part"),
    validation = Rule::new("!has(self.limits.usdPerHour) || self.limits.replicas == 0 || double(self.limits.usdPerHour) >= double(self.price.usdPerHour)").message("limits.usdPerHour is below the price of one replica, so the pool could never have one; raise it, or close the pool with limits.replicas: 0"),
    validation = Rule::new("!has(self.devices) || !has(oldSelf.devices) || self.devices == oldSelf.devices").message("devices can't change while replicas exist; create another pool and move models by their `pools`"),
    validation = Rule::new("has(self.deviceClassName) == has(oldSelf.deviceClassName) && (!has(self.deviceClassName) || self.deviceClassName == oldSelf.deviceClassName)").message("deviceClassName can't change while replicas exist; create another pool and move models by their `pools`"),
)]
pub struct GpuPoolSpec {
    /// What a replica runs on: `cpu`, or an extended resource such as `nvidia.com/gpu` or the MIG profile
    /// `nvidia.com/mig-1g.10gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^(cpu|[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)$"),
        length(max = 120)
    )]
    pub devices: Option<String>,
    /// Instead of `devices`: a device class of dynamic resource allocation (`resource.k8s.io/v1`), such as `gpu.nvidia.com`.
    /// Each replica claims `devicesPerReplica` of its devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub device_class_name: Option<String>,
    /// CEL expressions that a device of the class must satisfy, as in a ResourceClaim, such as
    /// `device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8), inner(length(min = 1, max = 1024)))]
    pub device_selectors: Vec<String>,
    /// How many devices one replica has.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub devices_per_replica: u32,
    /// Memory for models in one replica: the device's memory, or main memory for `cpu`. Bytes.
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("memory must be more than 0 bytes, such as 2Gi"))]
    pub memory: Quantity,
    /// Main memory in which models wait beside those on the device, in one replica; they come back from there faster than
    /// from disk. Left out: none. Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("hostCache must be more than 0 bytes, such as 64Gi; leave it out for none"))]
    pub host_cache: Option<Quantity>,
    /// How many times as fast as the pools' reference a replica draws, at most four decimals, such as "0.5" or "2": what a
    /// model that was never measured here is expected to run at. What is measured takes its place.
    #[serde(default = "reference_speed")]
    #[schemars(regex(pattern = r"^[0-9]{1,4}(\.[0-9]{1,4})?$"))]
    #[x_kube(validation = Rule::new("double(self) > 0.0").message("relativeSpeed must be more than 0, such as 0.5 or 2"))]
    pub relative_speed: String,
    /// CPU cores of one replica.
    #[serde(default = "one_core")]
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("cpu must be more than 0 cores, such as 2 or 500m"))]
    pub cpu: Quantity,
    /// What one replica costs, at the pool's capacity type. Spot and on-demand capacity are two pools, each with its price.
    pub price: Price,
    /// Spot replicas may be taken away at short notice.
    #[serde(default)]
    pub capacity_type: CapacityType,
    pub limits: PoolLimits,
    /// How many times its memory a replica may hold: above 1, Shared models that find no room for themselves share a
    /// replica in turns. Each is loaded from the replica's disk when it is asked for, which a request waits for.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub overcommit: u32,
    /// Replicas that are kept running beside those that hold models, so that a model that comes need not wait for a pod.
    /// They cost what any replica costs, and count in the limits.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub warm_spares: u32,
    /// Number format of the weights. Left out: f32 on `cpu`, bf16 elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Labels of the nodes whose devices these are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32))]
    pub tolerations: Vec<Toleration>,
    /// Where fetched checkpoints are kept. Left out: in each pod by itself, as much as its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What a checkpoint must prove before a replica of this pool loads it, beside its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Image of the inference pod. Left out: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What the pods of the pool have beside what the operator gives them.
    #[serde(default, skip_serializing_if = "PodOverrides::is_empty")]
    pub pod_overrides: PodOverrides,
}

/// Where fetched checkpoints are kept: on the node, on a claim, or (neither is named) in each pod by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.hostPath) && has(self.claimName))").message("name hostPath or claimName, not both"))]
pub struct Cache {
    /// Bytes that checkpoints may take; what was used longest ago goes first, and never what a pod holds.
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("size must be more than 0 bytes, such as 50Gi"))]
    pub size: Quantity,
    /// A folder of the node that user 65532 may write to, shared by all pods of the pool there, Dedicated ones too, and
    /// by other pools that name it. Safe to share: every load hashes every byte again, so a spoilt file is only fetched
    /// again; but who may enter one of the pods can read what is cached. Needs namespaces that allow host paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/[^:]+$"), length(max = 512))]
    pub host_path: Option<String>,
    /// A PersistentVolumeClaim in the operator's namespace, for Shared models' pods: one that all of their nodes may
    /// write to. Dedicated pods live in other namespaces and do not see it: each keeps a cache of this size by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
}

/// What a checkpoint must prove before a replica of this pool loads it, beside its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.publicKeys.all(key, key.startsWith('-----BEGIN PUBLIC KEY-----'))").message("a public key is PEM and begins with -----BEGIN PUBLIC KEY-----, as in the cosign.pub that cosign writes"))]
pub struct Verification {
    /// PEM public keys (as cosign makes them); one of them must have signed the checkpoint.
    #[schemars(length(min = 1, max = 16), inner(length(max = 4096)))]
    pub public_keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// US dollars for one replica and hour, at most six decimals, such as "2.49".
    #[schemars(regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub usd_per_hour: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapacityType {
    #[default]
    OnDemand,
    Spot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    /// As the pod's flag spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// What the pool may grow to, whatever the demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolLimits {
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: u32,
    /// US dollars an hour for all replicas together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    pub usd_per_hour: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuPoolStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What each replica runs on, such as `2 x nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<String>,
    /// Replicas that exist, of Shared and Dedicated models together.
    #[serde(default)]
    pub replicas: u32,
    #[serde(default)]
    pub ready_replicas: u32,
    /// What the existing replicas cost, in US dollars an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_hour: Option<String>,
    /// Memory for models in all replicas, and what resident models need of it. Bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    #[serde(default)]
    pub memory_used_bytes: u64,
    /// `namespace/name` of the models that are resident in at least one replica.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resident_models: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn one() -> u32 {
    1
}

fn reference_speed() -> String {
    "1".into()
}

fn one_core() -> Quantity {
    Quantity::new("1")
}
