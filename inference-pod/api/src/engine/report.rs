//! What a pod says of itself: which models are where, how fast, and what waits.
//! Knows words and units; what a pod shall hold is the residency's.

use serde::{Deserialize, Serialize};

use super::{Generation, ModelId, Tier};

/// What a pod says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The newest residency accepted; default when none was.
    pub generation: Generation,
    /// In the order of the residency. While a digest is swapped its model is here twice: first the former checkpoint,
    /// which draws, then the desired one.
    pub models: Vec<ModelReport>,
    pub waiting: u32,
    pub running: u32,
    /// Until everything that waits and runs is drawn, if nothing else comes. Zero before a step was measured, or from a
    /// pod that does not say.
    #[serde(default)]
    pub left_ms: u64,
    /// Until what runs is drawn, if nothing else went first.
    #[serde(default)]
    pub running_left_ms: u64,
    /// Bound of `waiting`; above it the pod answers 429.
    pub queue_limit: u32,
    /// True since SIGTERM: finishes what it has, takes nothing new.
    pub draining: bool,
    pub device: String,
    pub memory: MemoryReport,
}

/// Of the device; 0 in all: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    pub total_bytes: u64,
    /// By weights.
    pub used_bytes: u64,
    /// Beside weights and what the pictures on their way need. Zero from a pod that does not say.
    #[serde(default)]
    pub free_bytes: u64,
    /// What checkpoints of the host tier may take, and take.
    #[serde(default)]
    pub host: HostMemory,
}

/// All zero from a pod without a host tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub free_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    pub id: ModelId,
    pub digest: String,
    pub state: ModelState,
    /// Median of the last steps at the model's default size, milliseconds; absent until one was measured.
    pub step_ms: Option<f64>,
    /// The last way to the device; absent until it was there.
    pub load_ms: Option<u64>,
    /// Where it can be called from; absent before it is ready, and from a pod that does not say: then it is the device
    /// as soon as it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Where it is on its way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<Tier>,
    #[serde(default)]
    pub bytes: TierBytes,
    #[serde(default)]
    pub load_times: LoadTimes,
    /// Pictures that wait until it is on the device; `waiting` of the report counts them too.
    #[serde(default)]
    pub awaited: u32,
    /// What the checkpoint can do; empty before it is loaded, and from a pod that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<crate::images::Task>,
    /// The shapes that were stepped last, at most [`MAX_STEP_TIMES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_times: Vec<StepTime>,
    /// Of the desired checkpoint. They have no part in whether the model is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterReport {
    pub name: String,
    pub digest: String,
    pub state: AdapterState,
}

/// Where an adapter is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AdapterState {
    /// On its way from the store.
    Fetching,
    /// The first request that names it has it read into memory.
    OnDisk,
    /// Of the device.
    InMemory {
        bytes: u64,
    },
    Refused {
        reason: RefusalReason,
        message: String,
    },
}

/// What one checkpoint takes now, in each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierBytes {
    pub disk: u64,
    pub host: u64,
    pub device: u64,
}

/// The last of each way, milliseconds; absent until it was gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadTimes {
    /// From the store, or the proof of a folder that is kept on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_disk: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_to_host: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_to_device: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_to_device: Option<u64>,
}

pub const MAX_STEP_TIMES: usize = 16;

/// Median of the last steps of one shape and one number of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// Of the latents.
    pub height: u32,
    pub width: u32,
    /// Of the model's batch, for each picture.
    pub rows: u32,
    /// Pictures in the step.
    pub batch: u32,
    pub ms: f64,
}

/// Where a checkpoint is on its way to the first picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelState {
    /// On its way from the store, hashed while it comes. `seconds_left` is a guess from the last seconds' rate.
    Fetching {
        done_bytes: u64,
        total_bytes: u64,
        seconds_left: Option<u64>,
    },
    Verifying {
        done_bytes: u64,
        total_bytes: u64,
    },
    Loading,
    WarmingUp,
    Ready,
    Refused {
        reason: RefusalReason,
        message: String,
    },
}

/// Why a checkpoint is not served. Becomes the reason of the ImageModel's `CheckpointVerified` condition. The pod tries
/// again by itself, with growing pauses, what can mend itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Nothing at that path, in that repository, under that prefix.
    NotFound,
    /// The store does not answer, or broke off.
    Unreachable,
    /// The store wants a credential, or does not accept this one (any more).
    Unauthorized,
    /// The store gave fewer bytes than it promised.
    Truncated,
    /// No room for the files in the pod's cache.
    NoSpace,
    /// The bytes are not those of the digest.
    DigestMismatch,
    /// Not the diffusers layout, a class or a dtype that no pipeline knows.
    Unsupported,
    /// A pickle, or another file that may run code when it is read.
    UnsafeFormat,
    /// The pool demands a signature, and there is none.
    Unsigned,
    /// There are signatures, and none was made with a key that the pool trusts.
    SignatureInvalid,
    /// The bytes are right, but loading or the warm-up step failed.
    LoadFailed,
}

impl ModelState {
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
