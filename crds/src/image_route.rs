//! `ImageRoute`: the name that clients send, what stands behind it, and on which terms: classes of traffic and tenants.
//! Says what users want; which backends were found is in the status, written by the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model name for clients, and the terms on which it is served.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "easel.dev",
    version = "v1alpha1",
    kind = "ImageRoute",
    plural = "imageroutes",
    shortname = "iroute",
    category = "easel",
    namespaced,
    status = "ImageRouteStatus",
    derive = "PartialEq",
    doc = "A model name for clients: the models behind it, classes of traffic, tenants and their quotas.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name of a route has at most 63 characters; clients may be given a longer one by spec.model"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.model"),
    printcolumn(name = "Backends", type_ = "integer", json_path = ".status.acceptedBackends"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.readyBackends"),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultClass"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.backends.exists(b, b.weight > 0)").message("at least one backend must have a weight above 0, or nobody answers"),
    validation = Rule::new("!has(self.defaultClass) || (has(self.classes) && self.classes.exists(c, c.name == self.defaultClass))").message("defaultClass must be the name of one of classes"),
    validation = Rule::new("!has(self.classes) || self.classes.all(c, c.overflow != 'Degrade' || (has(c.degrade) && has(c.degrade.minSteps)) || self.backends.exists(b, b.tier != self.backends[0].tier))").message("overflow: Degrade needs something to degrade to: degrade.minSteps in the class, or backends of more than one tier"),
    validation = Rule::new("!has(self.classes) || self.classes.all(c, !has(c.degrade) || !has(c.degrade.minTier) || self.backends.exists(b, b.tier >= c.degrade.minTier))").message("degrade.minTier is above the tier of every backend, so nobody could answer; write the lowest tier that may"),
)]
pub struct ImageRouteSpec {
    /// What clients send as `model`. Left out: the route's own name. It stands before an ImageModel of the same name and
    /// namespace; of two routes the older one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$"), length(max = 128))]
    pub model: Option<String>,
    /// ImageModels of the route's namespace.
    #[schemars(
        length(min = 1),
        extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["model"])
    )]
    pub backends: Vec<Backend>,
    /// What each class of traffic is promised. A request names its class in the header `x-easel-class`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub classes: Vec<RouteClass>,
    /// The class of requests that name none. Left out: they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 40))]
    pub default_class: Option<String>,
    /// Who has shares and quotas here. A request names its tenant in the header `x-easel-tenant`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tenants: Vec<Tenant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The name of an ImageModel in the route's namespace.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 40))]
    pub model: String,
    /// Quality: the highest serves as long as it can, and `overflow: Degrade` goes down from there.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub tier: u32,
    /// Share of the requests among the backends of its tier; 0 takes none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
}

/// One class of traffic and its promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.degrade) || self.overflow == 'Degrade'").message("degrade says how far overflow: Degrade may go; leave it out, or set overflow: Degrade"),
)]
pub struct RouteClass {
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 40))]
    pub name: String,
    /// From the request's arrival to the last byte, such as `5s`; the deadline of requests that send none.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("latencyTarget must be more than 0, such as 800ms or 5s"))]
    pub latency_target: Duration,
    /// The share of requests that must be that fast, in percent.
    #[serde(default = "default_percentile")]
    #[schemars(range(min = 50, max = 99))]
    pub percentile: u32,
    /// Of requests that send no `x-easel-priority`.
    #[serde(default)]
    pub priority: Priority,
    /// A picture that would cost more is not drawn in this class. US dollars, at most six decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    #[x_kube(validation = Rule::new("double(self) > 0.0").message("maxUsdPerImage must be more than 0, such as 0.002"))]
    pub max_usd_per_image: Option<String>,
    /// What becomes of a request that can't be answered in time.
    #[serde(default)]
    pub overflow: Overflow,
    /// How far `overflow: Degrade` may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade: Option<Degrade>,
}

/// The least goes first in every queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// Queue: it waits and is late. Degrade: it is drawn with fewer steps, or by a lower tier. Shed: it is refused at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overflow {
    #[default]
    Queue,
    Degrade,
    Shed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.minSteps) || has(self.minTier)").message("degrade needs minSteps, minTier or both"))]
pub struct Degrade {
    /// Fewest steps that a picture may be drawn with. Left out: as many as were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_steps: Option<u32>,
    /// Lowest tier of a backend that may answer. Left out: the lowest there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_tier: Option<u32>,
}

/// Whoever shares the route with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// As the header `x-easel-tenant` says it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.:/@-]+$"), length(min = 1, max = 64))]
    pub name: String,
    /// Share beside the other tenants' when capacity is short.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// Requests that ask for a higher one get this.
    #[serde(default = "highest")]
    pub max_priority: Priority,
    /// At most so much in any window of each length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 4, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["window"]))]
    pub quotas: Vec<Quota>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.images) || has(self.megapixelSteps) || has(self.usd)").message("a quota needs at least one of images, megapixelSteps and usd"))]
pub struct Quota {
    /// Such as `1h` or `24h`.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('744h')").message("window is at least 1m and at most 744h (31 days), such as 1h"))]
    pub window: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub images: Option<u64>,
    /// Millions of pixels × steps: what drawing takes, whatever the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub megapixel_steps: Option<u64>,
    /// US dollars, at most six decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    pub usd: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRouteStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The name that clients send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Where clients send requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Backends that were found and take requests, and those of them that answer now.
    #[serde(default)]
    pub accepted_backends: u32,
    #[serde(default)]
    pub ready_backends: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["model"]))]
    pub backends: Vec<BackendStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    pub model: String,
    /// It exists, and its weight is above 0.
    pub accepted: bool,
    /// At least one replica answers for it.
    pub ready: bool,
    /// What is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ImageRoute {
    /// The name that clients send.
    pub fn model(&self) -> Option<&str> {
        self.spec.model.as_deref().or(self.metadata.name.as_deref())
    }
}

fn one() -> u32 {
    1
}

fn default_percentile() -> u32 {
    95
}

fn highest() -> Priority {
    Priority::High
}
