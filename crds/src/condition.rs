//! The tree of conditions and their fixed reasons.
//! `Ready` is true when all of its parts are; every part says what, why and how to mend it in its message.

mod meanings;

use std::fmt;

pub use meanings::{MEANINGS, Meaning, is_documented};

/// An enum whose variants' names are the API's words, with a list of all of them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$about])* $variant,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

words! {
    /// Types of conditions. `Ready` sums up the others of its kind.
    ConditionType {
        /// ImageModel: clients get pictures. GpuPool: replicas can be made. ImageRoute: clients are answered.
        Ready,
        /// ImageModel: the bytes in the pods are those of the digest.
        CheckpointVerified,
        /// ImageModel: the fleet has room for every wanted replica.
        Placed,
        /// ImageModel: at least one replica answers. ImageRoute: at least one backend does.
        Serving,
        /// ImageModel: every replica has the model's adapters on disk or in memory. No part of `Ready`.
        AdaptersReady,
        /// ImageRoute: clients reach it by its name.
        Accepted,
        /// ImageRoute: every backend exists. No part of `Ready`: the others serve on.
        ResolvedRefs,
    }
}

words! {
    /// Reasons. One may be used with true, false or unknown.
    Reason {
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
        PlacedInTurns,
        Parked,
        Asleep,
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
        NoReadyBackend,
        // AdaptersReady
        Available,
        // GpuPool
        PoolReady,
        InUse,
        // ImageRoute
        Accepted,
        ShadowsModel,
        NameTaken,
        ResolvedRefs,
        BackendNotFound,
        AwaitingPlan,
    }
}
