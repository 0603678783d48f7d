//! The engine protocol between operator, gateway and pod: desired residency with a generation, and the load report.
//! Times are milliseconds, memory is bytes.
//!
//! | path | method | who | what |
//! |---|---|---|---|
//! | `/engine/v1/residency` | PUT [`Residency`] → 200 [`Report`], 409 when older | operator | what shall be resident |
//! | `/engine/v1/report` | GET → [`Report`] as JSON lines, one now and one at every change (at least every second) | operator, gateway | what is |
//! | `/engine/v1/handover` | POST [`crate::frames`] | gateway | go on with a request that another pod has begun |
//! | `/engine/v1/requests/{id}` | DELETE → 204, 404 | gateway | forget the requests that came with this `x-request-id` |
//! | `/v1/images/generations` | POST [`crate::images::GenerationRequest`] | gateway | draw |
//!
//! What is drawn may carry [`crate::precedence::PRIORITY_HEADER`] and [`crate::precedence::TENANT_HEADER`]; with
//! [`crate::frames::SNAPSHOT_STEPS_HEADER`] the answer may come in frames.

mod report;

use serde::{Deserialize, Serialize};

pub use report::{
    AdapterReport, AdapterState, HostMemory, LoadTimes, MAX_STEP_TIMES, MemoryReport, ModelReport, ModelState,
    RefusalReason, Report, StepTime, TierBytes,
};

pub const RESIDENCY_PATH: &str = "/engine/v1/residency";
pub const REPORT_PATH: &str = "/engine/v1/report";
/// Followed by a slash and the `x-request-id` of what shall be forgotten.
pub const REQUESTS_PATH: &str = "/engine/v1/requests";
/// Takes the headers of what is handed over.
pub const HANDOVER_PATH: &str = "/engine/v1/handover";

/// Orders residencies: a new leader has a higher term, so that whatever an old one still sends is refused.
/// The order of the fields is the order of comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// The Lease's `leaseTransitions` when the sender became leader.
    pub term: u64,
    /// Counts the sender's own changes.
    pub sequence: u64,
}

/// What the leader wants to be resident in one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    pub generation: Generation,
    pub models: Vec<DesiredModel>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredModel {
    pub id: ModelId,
    pub checkpoint: Checkpoint,
    /// What the checkpoint's store asks for; not part of what the checkpoint is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    pub defaults: ModelDefaults,
    pub limits: ModelLimits,
    /// The tier that it must not fall below. A request brings it to the device from any.
    #[serde(default)]
    pub tier: Tier,
    /// What requests may name to change the model for a picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<DesiredAdapter>,
}

/// A `LoRA` of a model: a folder with one safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredAdapter {
    /// Once in a model.
    pub name: String,
    pub checkpoint: Checkpoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// Where a checkpoint is, the nearest to computing last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Proved files: of the pod's cache, or the folder itself.
    Disk,
    /// Whole in the pod's memory, on its way to a device that has memory of its own.
    Host,
    /// Computes.
    #[default]
    Device,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `namespace/name` of the ImageModel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub String);

impl ModelId {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A checkpoint in the diffusers layout: where it is, and what its bytes must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub source: Source,
    /// `sha256:` + hex. Of an OCI artifact, its manifest's digest; of anything else, the digest of the files'
    /// `sha256sum` listing; see the README of `inference-pod`.
    pub digest: String,
    /// Base64 of a signature over the text of `digest`, for sources that have no place for one. An OCI artifact's
    /// signatures lie beside it in the registry, as cosign puts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Where a checkpoint's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A folder as the pod sees it (the operator has turned `file://`, `pvc://` and `image://` into it).
    Folder { path: String },
    /// An artifact in an OCI registry, fetched by digest.
    Oci {
        /// Host, and port if it is not the scheme's.
        registry: String,
        repository: String,
        /// HTTP without TLS; for development.
        plain_http: bool,
    },
    /// The objects under a prefix of a bucket.
    S3 {
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
        /// Base URL of the server; `None`: AWS of the region.
        endpoint: Option<String>,
        region: Option<String>,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder { path } => f.write_str(path),
            Self::Oci { registry, repository, plain_http: _ } => write!(f, "oci://{registry}/{repository}"),
            Self::S3 { bucket, prefix, endpoint: _, region: _ } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// What a store asks for before it gives anything. Read by the operator from the model's own Secret, and sent to
/// nobody but the pods that shall hold the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Access {
    Registry {
        username: String,
        password: Secret,
        /// PEM of the authority that signed the server's certificate, when it is no public one.
        ca: Option<String>,
    },
    S3 {
        access_key_id: String,
        secret_access_key: Secret,
        session_token: Option<Secret>,
        /// PEM of the authority that signed the server's certificate, when it is no public one.
        ca: Option<String>,
    },
    /// Nothing secret, only an authority to trust.
    Authority { ca: String },
}

/// Text that must not be read by who reads logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What a request that does not say gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelDefaults {
    pub steps: u32,
    pub guidance_scale: f32,
    pub size: crate::ImageSize,
    pub sampler: crate::images::SamplerKind,
}

// `guidance_scale` comes from a validated field that can't be NaN, so equality is total.
impl Eq for ModelDefaults {}

/// What a request may ask for at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLimits {
    pub max_steps: u32,
    pub max_pixels: u64,
    pub max_images: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_is_above_anything_that_the_old_one_sends() {
        let old = Generation { term: 3, sequence: u64::MAX };
        assert!(Generation { term: 4, sequence: 0 } > old);
    }

    #[test]
    fn a_secret_is_sent_and_never_shown() {
        let (password, ca) = (Secret("hunter2".into()), None);
        let access = Access::Registry { username: "u".into(), password, ca };
        let json = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&json).unwrap(), access);
        assert!(!format!("{access:?}").contains("hunter2"));
    }

    #[test]
    fn a_model_without_a_tier_is_kept_on_the_device_and_an_unknown_tier_is_named() {
        let desired = |tier: &str| {
            let json = format!(
                r#"{{"id": "art/m", "checkpoint": {{"source": {{"kind": "folder", "path": "/m"}}, "digest": "sha256:0"}},
                "defaults": {{"steps": 4, "guidance_scale": 5.0, "size": "64x64", "sampler": "ddim"}},
                "limits": {{"max_steps": 9, "max_pixels": 9, "max_images": 9}}{tier}}}"#
            );
            serde_json::from_str::<DesiredModel>(&json).map(|model| model.tier)
        };
        assert_eq!(desired("").unwrap(), Tier::Device);
        assert_eq!(desired(r#", "tier": "host""#).unwrap(), Tier::Host);
        let error = desired(r#", "tier": "gpu""#).unwrap_err().to_string();
        assert!(error.starts_with("unknown variant `gpu`, expected one of `disk`, `host`, `device`"), "{error}");
    }

    #[test]
    fn the_report_of_a_pod_that_knows_no_tiers_reads_as_one_that_says_nothing_of_them() {
        let old = r#"{"id": "art/m", "digest": "d", "state": {"state": "ready"}, "step_ms": null, "load_ms": 7}"#;
        let model: ModelReport = serde_json::from_str(old).unwrap();
        assert_eq!((model.tier, model.awaited, model.bytes), (None, 0, TierBytes::default()));
        let memory: MemoryReport = serde_json::from_str(r#"{"total_bytes": 9, "used_bytes": 4}"#).unwrap();
        assert_eq!((memory.used_bytes, memory.host), (4, HostMemory::default()));
    }

    #[test]
    fn a_state_reads_back_from_its_json() {
        let state = ModelState::Refused { reason: RefusalReason::DigestMismatch, message: "m".into() };
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ModelState>(&json).unwrap(), state);
    }
}
