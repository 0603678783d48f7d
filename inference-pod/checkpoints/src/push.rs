//! A folder's way into an OCI registry: what may go is checked first, hashed, and what is missing there is sent.
//! Knows folders and one registry; does not know terminals, credential files or signatures.
//!
//! Memory is bounded: files are read in pieces of a MiB while they are sent, and a few are sent at once. Each file is
//! one PUT, as `oras` does it, because not every registry takes a file in pieces; one that breaks off is sent again.

mod client;
mod folder;
mod safetensors;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use oci_client::errors::OciDistributionError;

pub use client::client;
pub use folder::{Folder, FolderError, Hashed};
pub use upload::{Pushed, push};

/// What happens while a checkpoint is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The registry has these bytes already.
    Present { path: String, bytes: u64 },
    /// So many more bytes of the file are on their way.
    Sent { path: String, bytes: u64 },
    /// The connection broke or the registry failed; `bytes` were sent for nothing, and after a pause all begins again.
    Again { path: String, bytes: u64, why: String },
    /// The registry has taken the file.
    Done { path: String, bytes: u64 },
}

pub type Progress = Arc<dyn Fn(Event) + Send + Sync>;

/// How often what broke off is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub attempts: u32,
    /// Doubles each time.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_secs(1) }
    }
}

/// Why a checkpoint did not get into the registry.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(
        "{registry} does not accept the credential for pushing to {repository} ({why}); log in again with \
         `docker login {registry}`, or give --username and --password-stdin"
    )]
    Unauthorized { registry: String, repository: String, why: String },
    #[error(
        "failed to reach {registry}; check the name and the network, and give --ca FILE if its certificate is from an \
         authority of your own, --plain-http if it has no TLS"
    )]
    Unreachable {
        registry: String,
        #[source]
        source: Box<OciDistributionError>,
    },
    #[error("failed to read '{path}'; it must stay as it is until it is pushed")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to push {what} to {registry} (attempt {attempts}); push again: what is there is not sent twice")]
    Refused {
        registry: String,
        what: String,
        attempts: u32,
        #[source]
        source: Box<OciDistributionError>,
    },
}

#[cfg(test)]
pub(crate) mod tests;
