//! Names of pools, models, routes and replicas as types, so that one can't be taken for another.
//! Their text is Kubernetes' (`name`, `namespace/name`); nothing here parses it.

use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A GpuPool's name.
    PoolName
);
name!(
    /// An ImageModel's `namespace/name`.
    ModelId
);
name!(
    /// An ImageRoute's `namespace/name`.
    RouteId
);
name!(
    /// A pod's `namespace/name`.
    ReplicaId
);
