//! Reads a manifest that anybody may have pushed: the model-spec's raw layers, or plain layers as `oras push` writes.
//! Trusts nothing in it; does not know who signed it or where it came from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{ARTIFACT_TYPE, FILE_PATH, PathError, TITLE, path};
use crate::digest::Digest;

/// A folder of diffusers' has some dozens; this bounds what a hostile manifest can ask for.
pub const MAX_FILES: usize = 2_000;
/// What registries take at most.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative, with `/` between its parts, none of which is `.` or `..`.
    pub path: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Why a manifest is not a checkpoint's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    #[error("the manifest has {0} bytes; at most {MAX_MANIFEST_BYTES} are read")]
    TooLarge(usize),
    #[error("the manifest can't be read: {0}; push the folder again, with `kubectl easel push` or `oras push`")]
    Json(String),
    #[error(
        "this is an index of several images, not one artifact; name one manifest's digest, \
         and push checkpoints with `kubectl easel push`"
    )]
    Index,
    #[error(
        "the manifest has schema version {0}, which is not an OCI manifest's; push the folder again, \
         with `kubectl easel push` or `oras push`"
    )]
    SchemaVersion(i64),
    #[error("the manifest has no layers; push the folder again, with `kubectl easel push`")]
    Empty,
    #[error("the manifest has {0} layers; a checkpoint has at most {MAX_FILES} files")]
    TooManyFiles(usize),
    #[error(
        "layer {index} has no name (annotation {TITLE} or {FILE_PATH}): this looks like a container image; \
         push the folder's files with `kubectl easel push`"
    )]
    Unnamed { index: usize },
    #[error("layer {index} has two names, {title} and {file_path}; push the folder again, with `kubectl easel push`")]
    TwoNames { index: usize, title: String, file_path: String },
    #[error("layer {index}: the path {path:?} {why}; a file must lie below the checkpoint's folder")]
    Path { index: usize, path: String, why: PathError },
    #[error("two layers are called {0}; push the folder again, with `kubectl easel push`")]
    Duplicate(String),
    #[error("{0} is both a file and a folder; push the folder again, with `kubectl easel push`")]
    FileAndFolder(String),
    #[error("{path}: {digest} is not a SHA-256 digest; push the folder again, with `kubectl easel push`")]
    Digest { path: String, digest: String },
    #[error(
        "{path} is an archive ({media_type}), and archives are not unpacked; push one raw layer a file: \
         `kubectl easel push DIR oci://…`, `modctl build --raw`, \
         or `oras push REF $(find * -type f)` inside the folder"
    )]
    Archive { path: String, media_type: String },
}

/// The files that a manifest names, in the order of their paths.
pub fn files(manifest: &[u8]) -> Result<Vec<File>, ArtifactError> {
    if manifest.len() > MAX_MANIFEST_BYTES {
        return Err(ArtifactError::TooLarge(manifest.len()));
    }
    let json = |error: serde_json::Error| ArtifactError::Json(error.to_string());
    let Manifest { schema_version, manifests, layers } = serde_json::from_slice(manifest).map_err(json)?;
    if manifests.is_some() {
        return Err(ArtifactError::Index);
    }
    if schema_version != 2 {
        return Err(ArtifactError::SchemaVersion(schema_version));
    }
    if layers.is_empty() {
        return Err(ArtifactError::Empty);
    }
    if layers.len() > MAX_FILES {
        return Err(ArtifactError::TooManyFiles(layers.len()));
    }
    let mut files = layers.into_iter().enumerate().map(|(i, layer)| file(i, layer)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    distinct(&files)?;
    Ok(files)
}

/// Unknown fields are ignored, as the OCI specification asks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: i64,
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

fn file(index: usize, layer: Layer) -> Result<File, ArtifactError> {
    let Layer { media_type, digest, size, annotations } = layer;
    let mut annotations = annotations.unwrap_or_default();
    let path = match (annotations.remove(TITLE), annotations.remove(FILE_PATH)) {
        (Some(title), Some(file_path)) if title != file_path => {
            return Err(ArtifactError::TwoNames { index, title, file_path });
        }
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => return Err(ArtifactError::Unnamed { index }),
    };
    if let Err(why) = path::check(&path) {
        return Err(ArtifactError::Path { index, path, why });
    }
    if is_archive(&media_type, annotations.get(ORAS_UNPACK).map(String::as_str)) {
        return Err(ArtifactError::Archive { path, media_type });
    }
    match digest.parse() {
        Ok(digest) => Ok(File { path, digest, size }),
        Err(()) => Err(ArtifactError::Digest { path, digest }),
    }
}

/// Set by `oras push` on a folder that it packed.
const ORAS_UNPACK: &str = "io.deis.oras.content.unpack";

/// `oras push` calls every plain file `…image.layer.v1.tar` when it is told nothing better, so that name alone proves
/// nothing; the model-spec's names do.
fn is_archive(media_type: &str, unpack: Option<&str>) -> bool {
    let family = ARTIFACT_TYPE.split_once("manifest").map_or("", |(family, _)| family);
    let model_tar = media_type.starts_with(family) && media_type.split(['.', '+']).any(|part| part == "tar");
    let compressed = media_type.ends_with("+gzip") || media_type.ends_with("+zstd");
    model_tar || compressed || unpack == Some("true")
}

/// `files` is sorted by path.
fn distinct(files: &[File]) -> Result<(), ArtifactError> {
    let mut paths = BTreeSet::new();
    for File { path, digest: _, size: _ } in files {
        if !paths.insert(path.as_str()) {
            return Err(ArtifactError::Duplicate(path.clone()));
        }
        let mut folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        if let Some(folder) = folders.find(|folder| paths.contains(folder)) {
            return Err(ArtifactError::FileAndFolder(folder.to_owned()));
        }
    }
    Ok(())
}
