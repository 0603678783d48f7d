//! Decides whether a folder is the checkpoint that a digest names, before anything reads it as a model.
//! Knows files, the diffusers layout's outermost rule and refusals; does not know tensors or threads.
//!
//! The bytes that are loaded are those that were verified only while nothing writes to the folder in between: the
//! operator mounts checkpoints read-only, and every load verifies again.

pub mod digest;

use std::path::Path;

use easel_api::engine::{Checkpoint, RefusalReason};

use digest::{Digest, ListError, Listing};

/// Why a checkpoint is not served: what is wrong, why, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub reason: RefusalReason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Verification that did not end in a verdict, or ended in a refusal.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    Refused(Refusal),
    /// The checkpoint is not wanted any more.
    Cancelled,
}

/// A folder whose bytes are those of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub total_bytes: u64,
    /// Of the safetensors files: what loading will need at least.
    pub weight_bytes: u64,
}

/// Weights in these formats are pickles: reading one may run any program that is in it.
const PICKLES: [&str; 7] = ["bin", "ckpt", "pt", "pth", "pkl", "pickle", "joblib"];

/// Reads every byte of the folder. `progress` gets bytes done and in all, and says whether to go on.
pub fn verify(checkpoint: &Checkpoint, progress: impl FnMut(u64, u64) -> bool) -> Result<Verified, Stopped> {
    let folder = Path::new(&checkpoint.path);
    let wanted: Digest = checkpoint.digest.parse().map_err(|()| refused_form(checkpoint))?;
    let listing = list(folder, checkpoint).map_err(Stopped::Refused)?;
    check_layout(&listing, checkpoint).map_err(Stopped::Refused)?;
    let weights = listing.files().filter(|(path, _)| extension(path) == "safetensors").map(|(_, bytes)| bytes).sum();
    match listing.digest(progress) {
        Ok(Some(found)) if found == wanted => {
            Ok(Verified { total_bytes: listing.total_bytes(), weight_bytes: weights })
        }
        Ok(Some(found)) => Err(Stopped::Refused(mismatch(checkpoint, &found))),
        Ok(None) => Err(Stopped::Cancelled),
        Err(error) => Err(Stopped::Refused(unreadable(checkpoint, &error))),
    }
}

fn list(folder: &Path, checkpoint: &Checkpoint) -> Result<Listing, Refusal> {
    let path = &checkpoint.path;
    if !folder.is_absolute() {
        let message =
            format!("'{path}' is not an absolute path; name the folder as the pod sees it, such as /models/x");
        return Err(Refusal::new(RefusalReason::NotFound, message));
    }
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Listing::read(folder).map_err(|error| unreadable(checkpoint, &error)),
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

fn check_layout(listing: &Listing, checkpoint: &Checkpoint) -> Result<(), Refusal> {
    let path = &checkpoint.path;
    if let Some((pickle, _)) = listing.files().find(|(file, _)| PICKLES.contains(&extension(file).as_str())) {
        let message = format!(
            "'{path}' holds '{}', which is a pickle and may run code when read; convert it to safetensors and remove it",
            String::from_utf8_lossy(pickle)
        );
        return Err(Refusal::new(RefusalReason::Unsupported, message));
    }
    if !listing.files().any(|(file, _)| file == b"model_index.json") {
        let message = format!(
            "'{path}' has no model_index.json, so it is not in the diffusers layout; save it with save_pretrained()"
        );
        return Err(Refusal::new(RefusalReason::Unsupported, message));
    }
    Ok(())
}

fn extension(file: &[u8]) -> String {
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').map_or(&[][..], |dot| &name[dot + 1..]);
    String::from_utf8_lossy(extension).to_ascii_lowercase()
}

fn refused_form(checkpoint: &Checkpoint) -> Stopped {
    let message = format!(
        "'{}' is not a digest; write sha256: and 64 hexadecimal digits in lower case",
        checkpoint.digest.chars().take(80).collect::<String>()
    );
    Stopped::Refused(Refusal::new(RefusalReason::DigestMismatch, message))
}

fn mismatch(checkpoint: &Checkpoint, found: &Digest) -> Refusal {
    let Checkpoint { path, digest } = checkpoint;
    let message = format!(
        "the files in '{path}' have the digest {found}, not {digest}; they were changed or the copy is torn: copy the \
         checkpoint again, or name the digest that you mean"
    );
    Refusal::new(RefusalReason::DigestMismatch, message)
}

fn unreadable(checkpoint: &Checkpoint, error: &ListError) -> Refusal {
    let path = &checkpoint.path;
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

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model_index.json"), "{}").unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        fs::write(folder.path().join("unet/model.safetensors"), vec![7; 3000]).unwrap();
        folder
    }

    fn checkpoint(folder: &Path) -> Checkpoint {
        let digest = Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap();
        Checkpoint { path: folder.to_str().unwrap().to_owned(), digest: digest.to_string() }
    }

    fn reason(checkpoint: &Checkpoint) -> RefusalReason {
        match verify(checkpoint, |_, _| true) {
            Err(Stopped::Refused(refusal)) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_named_bytes_are_verified_and_counted() {
        let folder = folder();
        let mut last = (0, 0);
        let verified = verify(&checkpoint(folder.path()), |done, total| {
            last = (done, total);
            true
        });
        assert_eq!(verified, Ok(Verified { total_bytes: 3002, weight_bytes: 3000 }));
        assert_eq!(last, (3002, 3002));
    }

    #[test]
    fn one_changed_byte_is_a_mismatch() {
        let folder = folder();
        let checkpoint = checkpoint(folder.path());
        let mut bytes = vec![7; 3000];
        bytes[2999] = 8;
        fs::write(folder.path().join("unet/model.safetensors"), bytes).unwrap();
        assert_eq!(reason(&checkpoint), RefusalReason::DigestMismatch);
    }

    #[test]
    fn an_added_or_renamed_file_is_a_mismatch() {
        let folder = folder();
        let checkpoint = checkpoint(folder.path());
        fs::write(folder.path().join("unet/extra.json"), "").unwrap();
        assert_eq!(reason(&checkpoint), RefusalReason::DigestMismatch);
        fs::rename(folder.path().join("unet/extra.json"), folder.path().join("unet/renamed.json")).unwrap();
        assert_eq!(reason(&checkpoint), RefusalReason::DigestMismatch);
    }

    #[test]
    fn nothing_at_the_path_and_a_file_at_the_path_are_not_found() {
        let folder = folder();
        let digest = checkpoint(folder.path()).digest;
        for path in ["gone", "model_index.json"] {
            let path = folder.path().join(path).to_str().unwrap().to_owned();
            assert_eq!(reason(&Checkpoint { path, digest: digest.clone() }), RefusalReason::NotFound);
        }
        assert_eq!(reason(&Checkpoint { path: "models/x".into(), digest }), RefusalReason::NotFound);
    }

    #[test]
    fn pickles_are_refused_whatever_their_digest() {
        for name in ["unet/diffusion_pytorch_model.bin", "model.CKPT", "vae/a.pt"] {
            let folder = folder();
            fs::create_dir(folder.path().join("vae")).unwrap();
            fs::write(folder.path().join(name), "x").unwrap();
            assert_eq!(reason(&checkpoint(folder.path())), RefusalReason::Unsupported, "{name}");
        }
    }

    #[test]
    fn a_folder_without_an_index_is_unsupported() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), "x").unwrap();
        assert_eq!(reason(&checkpoint(folder.path())), RefusalReason::Unsupported);
    }

    #[test]
    fn what_is_not_a_digest_is_refused_before_a_byte_is_read() {
        let folder = folder();
        let digest = checkpoint(folder.path()).digest.to_uppercase();
        let checkpoint = Checkpoint { path: folder.path().to_str().unwrap().to_owned(), digest };
        assert_eq!(reason(&checkpoint), RefusalReason::DigestMismatch);
    }

    #[test]
    fn verification_stops_when_the_checkpoint_is_not_wanted_any_more() {
        let folder = folder();
        assert_eq!(verify(&checkpoint(folder.path()), |_, _| false), Err(Stopped::Cancelled));
    }
}
