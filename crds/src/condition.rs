//! The tree of conditions and their fixed reasons.
//! `Ready` is true when all of its parts are; every part says what, why and how to mend it in its message.

use std::fmt;

/// Types of conditions. `Ready` sums up the others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// ImageModel: clients get pictures. GpuPool: replicas can be made.
    Ready,
    /// ImageModel: the bytes in the pods are those of the digest.
    CheckpointVerified,
    /// ImageModel: the fleet has room for every wanted replica.
    Placed,
    /// ImageModel: at least one replica answers.
    Serving,
    /// ImageModel: every replica has the model's adapters on disk or in memory. No part of `Ready`.
    AdaptersReady,
}

/// Reasons. One may be used with true, false or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    // Ready
    AllPartsReady,
    // CheckpointVerified
    Verified,
    ResolvingTag,
    Fetching,
    Verifying,
    NotFound,
    Unreachable,
    Unauthorized,
    Truncated,
    NoSpace,
    DigestMismatch,
    Unsupported,
    UnsafeFormat,
    Unsigned,
    SignatureInvalid,
    LoadFailed,
    SecretNotFound,
    AwaitingReplica,
    // Placed
    Placed,
    Parked,
    NoPool,
    UnknownPool,
    TooLittleMemory,
    PoolLimitReached,
    CostCeiling,
    InvalidSpec,
    // Serving
    Serving,
    Starting,
    NoReadyReplica,
    // AdaptersReady
    Available,
    // GpuPool
    PoolReady,
    InUse,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f) // the variants' names are the API's words
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
