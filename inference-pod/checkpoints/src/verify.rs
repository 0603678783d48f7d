//! Decides whether a folder is the checkpoint that a digest names, before anything reads it as a model.
//! Knows files, the diffusers layout's outermost rule and refusals; does not know tensors or threads.
//!
//! The bytes that are loaded are those that were verified only while nothing writes to the folder in between: the
//! operator mounts checkpoints read-only, and every load verifies again.

use std::path::Path;

use easel_api::engine::RefusalReason;

use crate::digest::{Digest, ListError, Listing};
use crate::layout;
use crate::refusal::{Refusal, Stopped};

/// A folder whose bytes are those of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub total_bytes: u64,
    /// Of the safetensors files: what loading will need at least.
    pub weight_bytes: u64,
}

/// Reads every byte of the folder. `progress` gets bytes done and in all, and says whether to go on.
pub fn folder(path: &str, digest: &str, progress: impl FnMut(u64, u64) -> bool) -> Result<Verified, Stopped> {
    let wanted = parse(digest)?;
    let listing = list(path)?;
    layout::check(listing.files().map(|(file, _)| file), path)?;
    match listing.digest(progress) {
        Ok(Some(found)) if found == wanted => {
            Ok(Verified { total_bytes: listing.total_bytes(), weight_bytes: layout::weight_bytes(listing.files()) })
        }
        Ok(Some(found)) => Err(mismatch(path, digest, &found).into()),
        Ok(None) => Err(Stopped::Cancelled),
        Err(error) => Err(unreadable(path, &error).into()),
    }
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

fn list(path: &str) -> Result<Listing, Refusal> {
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

fn mismatch(path: &str, digest: &str, found: &Digest) -> Refusal {
    let message = format!(
        "the files in '{path}' have the digest {found}, not {digest}; they were changed or the copy is torn: copy the \
         checkpoint again, or name the digest that you mean"
    );
    Refusal::new(RefusalReason::DigestMismatch, message)
}

fn unreadable(path: &str, error: &ListError) -> Refusal {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn make() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model_index.json"), "{}").unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        fs::write(folder.path().join("unet/model.safetensors"), vec![7; 3000]).unwrap();
        folder
    }

    fn digest(folder: &Path) -> String {
        Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string()
    }

    fn reason(path: &Path, digest: &str) -> RefusalReason {
        match folder(path.to_str().unwrap(), digest, |_, _| true) {
            Err(Stopped::Refused(refusal)) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_named_bytes_are_verified_and_counted() {
        let made = make();
        let mut last = (0, 0);
        let verified = folder(made.path().to_str().unwrap(), &digest(made.path()), |done, total| {
            last = (done, total);
            true
        });
        assert_eq!(verified, Ok(Verified { total_bytes: 3002, weight_bytes: 3000 }));
        assert_eq!(last, (3002, 3002));
    }

    #[test]
    fn one_changed_byte_is_a_mismatch() {
        let made = make();
        let digest = digest(made.path());
        let mut bytes = vec![7; 3000];
        bytes[2999] = 8;
        fs::write(made.path().join("unet/model.safetensors"), bytes).unwrap();
        assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
    }

    #[test]
    fn an_added_or_renamed_file_is_a_mismatch() {
        let made = make();
        let digest = digest(made.path());
        fs::write(made.path().join("unet/extra.json"), "").unwrap();
        assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
        fs::rename(made.path().join("unet/extra.json"), made.path().join("unet/renamed.json")).unwrap();
        assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
    }

    #[test]
    fn nothing_at_the_path_and_a_file_at_the_path_are_not_found() {
        let made = make();
        let digest = digest(made.path());
        for path in ["gone", "model_index.json"] {
            assert_eq!(reason(&made.path().join(path), &digest), RefusalReason::NotFound);
        }
        assert_eq!(reason(Path::new("models/x"), &digest), RefusalReason::NotFound);
    }

    #[test]
    fn pickles_are_refused_whatever_their_digest() {
        for name in ["unet/diffusion_pytorch_model.bin", "model.CKPT", "unet/a.pt"] {
            let made = make();
            fs::write(made.path().join(name), "x").unwrap();
            assert_eq!(reason(made.path(), &digest(made.path())), RefusalReason::UnsafeFormat, "{name}");
        }
    }

    #[test]
    fn what_is_not_a_digest_is_refused_before_a_byte_is_read() {
        let made = make();
        let digest = digest(made.path()).to_uppercase();
        assert_eq!(reason(made.path(), &digest), RefusalReason::DigestMismatch);
    }

    #[test]
    fn verification_stops_when_the_checkpoint_is_not_wanted_any_more() {
        let made = make();
        let path = made.path().to_str().unwrap();
        assert_eq!(folder(path, &digest(made.path()), |_, _| false), Err(Stopped::Cancelled));
    }
}
