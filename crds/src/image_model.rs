//! `ImageModel`: a checkpoint that shall be served, where, how much and how fast.
//! Says what users want; what the fleet can do about it is in the status, written by the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Adapter, Quantity};

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
    validation = Rule::new("!self.checkpoint.uri.startsWith('image://') || self.placement == 'Dedicated'").message("an image:// checkpoint needs placement: Dedicated, because an image is mounted when a pod starts"),
    validation = Rule::new("self.defaults.steps <= self.limits.maxSteps").message("defaults.steps must not be above limits.maxSteps"),
    validation = Rule::new("int(self.defaults.size.split('x')[0]) * int(self.defaults.size.split('x')[1]) <= self.limits.maxPixels").message("defaults.size has more pixels than limits.maxPixels"),
    validation = Rule::new("self.placement == oldSelf.placement").message("placement can't change; create another ImageModel and move clients to it"),
)]
pub struct ImageModelSpec {
    pub checkpoint: Checkpoint,
    /// What requests may name to change the model for a picture. Each is fetched beside the checkpoint, and has no part in
    /// whether the model is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub adapters: Vec<Adapter>,
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
    /// What the model may cost at most, whatever the demand.
    #[serde(default, skip_serializing_if = "Cost::is_empty")]
    pub cost: Cost,
}

/// A checkpoint in the diffusers layout, pinned to its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.uri.matches('^(file:///|pvc://|image://|oci://|s3://)')").message("uri must start with file:/// (a folder of the inference image), pvc:// (CLAIM/FOLDER), image:// (an image volume), oci:// (REGISTRY/REPOSITORY) or s3:// (BUCKET/PREFIX)"),
    validation = Rule::new("!self.uri.startsWith('pvc://') || self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?$')").message("a pvc uri is pvc://CLAIM/FOLDER, where CLAIM is the name of a PersistentVolumeClaim"),
    validation = Rule::new("!self.uri.matches('^(oci|image)://') || self.uri.matches('^(oci|image)://[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$')").message("an oci or image uri is REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], such as oci://registry.example/models/emoji@sha256:…"),
    validation = Rule::new("!self.uri.startsWith('s3://') || self.uri.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?$')").message("an s3 uri is s3://BUCKET/PREFIX"),
    validation = Rule::new("!self.uri.matches('(^|/)[.][.]?(/|$)')").message("uri must not contain . or .. as a folder"),
    validation = Rule::new("has(self.digest) || self.uri.contains('@sha256:') || (has(self.resolveTag) && self.resolveTag)").message("a checkpoint must be pinned: write its digest (in digest, or as @sha256:… in an oci uri), or say resolveTag: true to pin the tag when it is applied"),
    validation = Rule::new("!(has(self.resolveTag) && self.resolveTag) || (self.uri.startsWith('oci://') && !self.uri.contains('@sha256:') && !has(self.digest))").message("resolveTag is for an oci:// uri with a tag and without a digest"),
    validation = Rule::new("!self.uri.startsWith('oci://') || !self.uri.contains('@sha256:') || !has(self.digest)").message("the uri carries the digest already; leave digest out"),
    validation = Rule::new("!self.uri.startsWith('image://') || (self.uri.contains('@sha256:') && has(self.digest))").message("an image:// checkpoint needs both: @sha256:… of the image in the uri, so that the node fetches no other, and digest of the files in it"),
    validation = Rule::new("!has(self.secretRef) || self.uri.matches('^(oci|s3)://')").message("secretRef is for oci:// and s3:// checkpoints, which the pod fetches itself"),
    validation = Rule::new("!has(self.endpoint) || self.uri.startsWith('s3://')").message("endpoint is for s3:// checkpoints"),
    validation = Rule::new("!has(self.region) || self.uri.startsWith('s3://')").message("region is for s3:// checkpoints"),
    validation = Rule::new("!(has(self.plainHttp) && self.plainHttp) || self.uri.startsWith('oci://')").message("plainHttp is for oci:// checkpoints; write http:// in the endpoint of an s3:// one"),
    validation = Rule::new("!has(self.signature) || !self.uri.startsWith('oci://')").message("the signatures of an oci:// checkpoint lie beside it in the registry; push them there"),
)]
pub struct Checkpoint {
    /// Where it is: `oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]`, `s3://BUCKET/PREFIX`, `file:///models/NAME` in
    /// the inference image, `pvc://CLAIM/FOLDER`, or `image://REGISTRY/REPOSITORY@sha256:DIGEST` as an image volume, which
    /// nodes have by themselves from Kubernetes 1.35.
    #[schemars(length(min = 1, max = 1024))]
    pub uri: String,
    /// Of an oci artifact, its manifest's digest; of anything else, the SHA-256 of the files' `sha256sum` listing, as
    /// `kubectl easel digest FOLDER` and the README's line for the shell print it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')").message("digest must be sha256: and 64 hexadecimal digits in lower case"))]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Pin the tag of an `oci://` uri (`latest` if it has none) to what it names when the uri is first seen. The digest
    /// stands in `status.checkpoint`; a tag that moves later changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolve_tag: bool,
    /// A Secret in the model's namespace. For `oci://`: of type `kubernetes.io/dockerconfigjson`, or with `username` and
    /// `password`. For `s3://`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` if there is one.
    /// `ca.crt` is trusted for the store's certificate. Read again every 20 seconds, so a rotated credential reaches
    /// the pods by itself. For image:// the node pulls, with the pull secrets of the namespace's default service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Base URL of an S3-compatible server. Left out: AWS of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/@?#]+(/[^?#]*)?$')").message("endpoint is a URL such as https://s3.example:9000"))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub region: Option<String>,
    /// Talk to the registry without TLS; for development.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
    /// Base64 of a signature over the text of `digest`, as `kubectl easel sign` and `cosign sign-blob` make it, for
    /// pools that demand one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub signature: Option<String>,
}

/// A Secret in the model's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl Checkpoint {
    /// The digest that the spec itself names; `None` for a tag that is still to be resolved.
    pub fn pinned(&self) -> Option<&str> {
        match &self.digest {
            Some(digest) => Some(digest),
            None if self.uri.starts_with("oci://") => self.uri.split_once('@').map(|(_, digest)| digest),
            None => None,
        }
    }
}

impl ImageModel {
    /// The digest of the spec's checkpoint: the spec's own, or the one that its tag was resolved to.
    pub fn digest(&self) -> Option<&str> {
        let wanted = &self.spec.checkpoint;
        let resolved = || self.resolved().filter(|(uri, _)| wanted.resolve_tag && *uri == wanted.uri);
        wanted.pinned().or_else(|| resolved().map(|(_, digest)| digest))
    }

    /// Uri and digest that pods are told: those of the spec, or, while its tag is still to be resolved, the ones before.
    pub fn in_effect(&self) -> Option<(&str, &str)> {
        match self.digest() {
            Some(digest) => Some((&self.spec.checkpoint.uri, digest)),
            None => self.resolved(),
        }
    }

    /// What pods were told last, as the status remembers it.
    fn resolved(&self) -> Option<(&str, &str)> {
        let told = self.status.as_ref()?.checkpoint.as_ref()?;
        Some((&told.uri, told.digest.as_deref()?))
    }
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

/// How noise becomes a picture. `FlowMatchEuler` is for models trained by flow matching, and they take no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sampler {
    #[default]
    #[serde(rename = "DDIM")]
    Ddim,
    #[serde(rename = "DDPM")]
    Ddpm,
    Euler,
    EulerAncestral,
    Heun,
    #[serde(rename = "DPMPP2M")]
    Dpmpp2m,
    #[serde(rename = "DPMPP2MKarras")]
    Dpmpp2mKarras,
    #[serde(rename = "DPMPP2MSDE")]
    Dpmpp2mSde,
    #[serde(rename = "UniPC")]
    UniPc,
    #[serde(rename = "LCM")]
    Lcm,
    FlowMatchEuler,
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

/// How many replicas hold the model: `min`, and as many up to `max` as demand asks for. `kubectl scale` sets `min`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.max) || self.min <= self.max").message("replicas.min must not be above replicas.max"))]
pub struct Replicas {
    /// 0 with a `max`: nothing is held while nobody asks, and the first request waits until the model is there. 0 without
    /// a `max` parks the model: its pods go, and requests are answered with 503 until it is raised.
    #[serde(default = "default_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,
    /// Left out: always `min`, whatever the demand.
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

/// Ceilings in US dollars, at most six decimals; one that is left out bounds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Of one picture by the model's defaults, drawn alone. A pool where it is measured or expected to cost more takes no
    /// replica; nobody is refused before a step was measured anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    #[x_kube(validation = Rule::new("double(self) > 0.0").message("cost.maxUsdPerImage must be more than 0, such as 0.002; park a model with replicas.min: 0"))]
    pub max_usd_per_image: Option<String>,
    /// Of all replicas together. One that is shared with other models counts with its whole price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    #[x_kube(validation = Rule::new("double(self) > 0.0").message("cost.maxUsdPerHour must be more than 0, such as 12.50; park a model with replicas.min: 0"))]
    pub max_usd_per_hour: Option<String>,
}

impl Cost {
    pub fn is_empty(&self) -> bool {
        let Self { max_usd_per_image, max_usd_per_hour } = self;
        max_usd_per_image.is_none() && max_usd_per_hour.is_none()
    }
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
    /// The checkpoint that shall be served, and how far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolReplicas>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The checkpoint that shall be served, and how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// The uri of the spec that `digest` belongs to.
    pub uri: String,
    /// The digest that pods are told: the spec's own, or what the tag was resolved to. While a new tag is still to be
    /// resolved, `uri` and `digest` are those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// While a replica fetches: bytes that the slowest one has, bytes in all, and a guess of the seconds left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
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
