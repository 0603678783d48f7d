//! The manifest of a checkpoint in an OCI registry: media types, writing one from a folder's files, reading one back.
//! Knows bytes only; does not know registries, files or signatures.

mod path;
mod read;
mod write;

pub use path::PathError;
pub use read::{ArtifactError, File, MAX_FILES, MAX_MANIFEST_BYTES, files};
pub use write::{Artifact, artifact};

/// Of the manifest itself: every registry takes it.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What the manifest is about, by the CNCF model-spec.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
pub const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
pub const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
pub const DOC: &str = "application/vnd.cncf.model.doc.v1.raw";

/// The model-spec's name for where a layer belongs.
pub const FILE_PATH: &str = "org.cncf.model.filepath";
/// What `oras` names a pulled file by.
pub const TITLE: &str = "org.opencontainers.image.title";

#[cfg(test)]
mod tests;
