//! `ImageModel`: a checkpoint that shall be served, where, how much and how fast.
//! Says what users want; what the fleet can do about it is in the status, written by the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// A checkpoint that shall be served.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "easel.dev",
    version = "v1alpha1",
    kind = "ImageModel",
    plural = "imagemodels",
    shortname = "imodel",
    category = "easel",
    namespaced,
    status = "ImageModelStatus",
    derive = "PartialEq",
    doc = "A checkpoint that shall be served: which bytes, on which pools, how many replicas, how fast.",
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name of a model has at most 40 characters: it becomes part of its pods' names"),
    scale(
        spec_replicas_path = ".spec.replicas.min",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Placement", type_ = "string", json_path = ".spec.placement"),
    printcolumn(name = "Pools", type_ = "string", json_path = ".status.pools[*].pool"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.digest", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.checkpoint.uri.startsWith('pvc://') || self.placement == 'Dedicated'").message("a pvc:// checkpoint needs placement: Dedicated, because a volume claim is only visible in the model's own namespace"),
    validation = Rule::new("self.defaults.steps <= self.limits.maxSteps").message("defaults.steps must not be above limits.maxSteps"),
    validation = Rule::new("int(self.defaults.size.split('x')[0]) * int(self.defaults.size.split('x')[1]) <= self.limits.maxPixels").message("defaults.size has more pixels than limits.maxPixels"),
    validation = Rule::new("self.placement == oldSelf.placement").message("placement can't change; create another ImageModel and move clients to it"),
)]
pub struct ImageModelSpec {
    pub checkpoint: Checkpoint,
    /// Memory that the loaded model and one request at its limits need on the device. Bytes.
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("memory must be more than 0 bytes, such as 512Mi"))]
    pub memory: Quantity,
    /// What a request that does not say gets.
    #[serde(default)]
    pub defaults: Defaults,
    /// What a request may ask for at most.
    #[serde(default)]
    pub limits: Limits,
    /// Shared: lives beside other models in a pool's replicas. Dedicated: in replicas of its own, in its namespace.
    #[serde(default)]
    pub placement: Placement,
    /// Pools in order of preference; a later one is used when an earlier one can't take it. Empty: the cheapest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "set"))]
    pub pools: Vec<String>,
    #[serde(default)]
    pub replicas: Replicas,
    /// What each class of traffic is promised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["class"]))]
    pub slo: Vec<Slo>,
}

/// A folder in the diffusers layout, pinned to its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.uri.startsWith('file:///') || self.uri.startsWith('pvc://')").message("uri must start with file:/// (a folder of the inference image) or pvc:// (CLAIM/FOLDER of a PersistentVolumeClaim)"),
    validation = Rule::new("!self.uri.startsWith('pvc://') || self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?$')").message("a pvc uri is pvc://CLAIM/FOLDER, where CLAIM is the name of a PersistentVolumeClaim"),
    validation = Rule::new("!self.uri.matches('(^|/)[.][.]?(/|$)')").message("uri must not contain . or .. as a folder"),
)]
pub struct Checkpoint {
    /// Where it is: `file:///models/NAME` in the inference image, or `pvc://CLAIM/FOLDER`.
    #[schemars(length(min = 1, max = 1024))]
    pub uri: String,
    /// SHA-256 of the folder's `sha256sum` listing, as the README's line for the shell prints it.
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')").message("digest must be sha256: and 64 hexadecimal digits in lower case"))]
    #[schemars(length(max = 71))]
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// Denoising steps.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// Classifier-free guidance; 1 and below switch it off.
    #[serde(default = "default_guidance")]
    #[schemars(range(min = 0.0, max = 50.0))]
    pub guidance_scale: f64,
    /// `WIDTHxHEIGHT` in pixels.
    #[serde(default = "default_size")]
    #[schemars(length(max = 9))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$') && int(self.split('x')[0]) % 16 == 0 && int(self.split('x')[1]) % 16 == 0").message("size is WIDTHxHEIGHT in pixels, both multiples of 16, such as 512x512"))]
    pub size: String,
    #[serde(default)]
    pub sampler: Sampler,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sampler {
    #[default]
    #[serde(rename = "DDIM")]
    Ddim,
    Euler,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    #[serde(default = "default_max_steps")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_steps: u32,
    /// Width × height.
    #[serde(default = "default_max_pixels")]
    #[schemars(range(min = 256, max = 14_745_600))]
    pub max_pixels: u32,
    /// Pictures of one request.
    #[serde(default = "default_max_images")]
    #[schemars(range(min = 1, max = 10))]
    pub max_images: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    #[default]
    Shared,
    Dedicated,
}

/// How many replicas hold the model. `kubectl scale` sets `min`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.max) || self.min <= self.max").message("replicas.min must not be above replicas.max"))]
pub struct Replicas {
    /// 0 parks the model: its pods go, and requests are answered with 503 until it is raised.
    #[serde(default = "default_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<u32>,
}

/// One class of traffic and its promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 40))]
    pub class: String,
    /// From the request's arrival to the last byte, such as `5s`.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("latency must be more than 0, such as 800ms or 5s"))]
    pub latency: Duration,
    /// The share of requests that must be that fast, in percent.
    #[serde(default = "default_percentile")]
    #[schemars(range(min = 50, max = 99))]
    pub percentile: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageModelStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas in which the model is wanted, on all pools.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas that answer requests for it.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where clients send requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The checkpoint that ready replicas serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolReplicas>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolReplicas {
    pub pool: String,
    pub replicas: u32,
    pub ready_replicas: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        let (steps, guidance_scale, size) = (default_steps(), default_guidance(), default_size());
        Self { steps, guidance_scale, size, sampler: Sampler::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_steps: default_max_steps(), max_pixels: default_max_pixels(), max_images: default_max_images() }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: default_min(), max: None }
    }
}

fn default_steps() -> u32 {
    30 // what 91 % of production requests use
}

fn default_guidance() -> f64 {
    7.5 // diffusers' default for Stable Diffusion
}

fn default_size() -> String {
    "512x512".into()
}

fn default_max_steps() -> u32 {
    100
}

fn default_max_pixels() -> u32 {
    1024 * 1024
}

fn default_max_images() -> u32 {
    10 // OpenAI's bound
}

fn default_min() -> u32 {
    1
}

fn default_percentile() -> u32 {
    95
}
