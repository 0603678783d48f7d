//! What is said of a folder that is, or is not, the checkpoint that a digest names.
//! Knows folders, digests and refusals; the bytes are read and hashed by [`crate::Files`].

use std::path::Path;

use easel_api::engine::RefusalReason;

use crate::digest::{Digest, ListError, Listing};
use crate::refusal::Refusal;

/// A folder whose bytes are those of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub total_bytes: u64,
    /// Of the safetensors files: what loading will need at least.
    pub weight_bytes: u64,
}

/// The digest that a residency names.
pub(crate) fn parse(digest: &str) -> Result<Digest, Refusal> {
    digest.parse().map_err(|()| {
        let message = format!(
            "'{}' is not a digest; write sha256: and 64 hexadecimal digits in lower case",
            digest.chars().take(80).collect::<String>()
        );
        Refusal::new(RefusalReason::DigestMismatch, message)
    })
}

pub(crate) fn list(path: &str) -> Result<Listing, Refusal> {
    let folder = Path::new(path);
    if !folder.is_absolute() {
        let message =
            format!("'{path}' is not an absolute path; name the folder as the pod sees it, such as /models/x");
        return Err(Refusal::new(RefusalReason::NotFound, message));
    }
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Listing::read(folder).map_err(|error| unreadable(path, &error)),
        Ok(_) => {
            let message =
                format!("'{path}' is a file; a checkpoint is a folder in the diffusers layout: name the folder");
            Err(Refusal::new(RefusalReason::NotFound, message))
        }
        Err(error) => {
            let message = format!("no folder at '{path}' ({error}); check the path and that the volume is mounted");
            Err(Refusal::new(RefusalReason::NotFound, message))
        }
    }
}

pub(crate) fn mismatch(path: &str, digest: &Digest, found: &Digest) -> Refusal {
    let message = format!(
        "the files in '{path}' have the digest {found}, not {digest}; they were changed or the copy is torn: copy the \
         checkpoint again, or name the digest that you mean"
    );
    Refusal::new(RefusalReason::DigestMismatch, message)
}

/// Of a copy in the cache, whose files are named one by one.
pub(crate) fn spoilt() -> Refusal {
    let message = "the cache's copy was changed or its disk fails; it is fetched again";
    Refusal::new(RefusalReason::DigestMismatch, message)
}

pub(crate) fn unreadable(path: &str, error: &ListError) -> Refusal {
    match error {
        ListError::Changed { .. } => {
            let message = format!("'{path}': {error}; mount the checkpoint read-only and copy it before it is named");
            Refusal::new(RefusalReason::DigestMismatch, message)
        }
        ListError::Read { .. } => {
            let message = format!("'{path}': {error}; check the volume and the permissions of the files");
            Refusal::new(RefusalReason::NotFound, message)
        }
        ListError::Link(_) | ListError::Special(_) | ListError::Name(_) | ListError::Deep(_) => {
            Refusal::new(RefusalReason::Unsupported, format!("'{path}': {error}"))
        }
    }
}
