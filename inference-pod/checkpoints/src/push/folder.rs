//! Decides whether a folder may be pushed, before a byte leaves: what a pod would refuse is refused here.
//! Knows the diffusers layout and adapters from outside; does not know registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::artifact::{self, Artifact, ArtifactError, File};
use crate::digest::{Digest, ListError, Listing, hash_files, listing};
use crate::layout;
use crate::push::safetensors;
use crate::refusal::Refusal;

/// A folder in the diffusers layout, or of an adapter: safetensors, JSON and text.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Path within the folder and size, in the order of the listing.
    files: Vec<(String, u64)>,
}

/// A folder whose bytes are known.
#[derive(Debug)]
pub struct Hashed {
    pub(super) root: PathBuf,
    pub(super) files: Vec<File>,
    pub(super) artifact: Artifact,
}

/// Why a folder is not pushed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("'{0}' is not a folder; name one that save_pretrained() wrote")]
    NotAFolder(String),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("failed to read '{path}'")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the name of '{0}' is not UTF-8; rename it")]
    Name(String),
    #[error("model_index.json {0}; save the pipeline again with save_pretrained()")]
    Index(String),
    #[error("the folder has no .safetensors file; save the pipeline with save_pretrained(safe_serialization=True)")]
    NoWeights,
    #[error("'{path}' is not a whole safetensors file ({why}); copy it again, or save it again with save_pretrained()")]
    Safetensors { path: String, why: String },
    #[error("the folder can't be an artifact: {0}")]
    Artifact(#[from] ArtifactError),
}

impl Folder {
    /// Reads names and headers, not the weights.
    pub fn check(root: &Path) -> Result<Self, FolderError> {
        if !root.is_dir() {
            return Err(FolderError::NotAFolder(root.display().to_string()));
        }
        let listing = Listing::read(root)?;
        layout::check(listing.files().map(|(path, _)| path), &root.display().to_string())?;
        let name = |path: &[u8]| {
            String::from_utf8(path.to_vec()).map_err(|_| FolderError::Name(String::from_utf8_lossy(path).into_owned()))
        };
        let files = listing.files().map(|(path, bytes)| name(path).map(|path| (path, bytes)));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let folder = Self { root: root.to_owned(), files };
        if !layout::is_adapter(folder.files.iter().map(|(path, _)| path.as_bytes())) {
            folder.check_index()?;
        }
        folder.check_weights()?;
        Ok(folder)
    }

    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Reads every byte. `progress` gets bytes done and in all, and says whether to go on; `None` when it says no.
    pub fn hash(self, progress: impl FnMut(u64, u64) -> bool) -> Result<Option<Hashed>, FolderError> {
        let Self { root, files } = self;
        let by_path: Vec<_> = files.iter().map(|(path, bytes)| (path.clone().into_bytes(), *bytes)).collect();
        let Some(digests) = hash_files(&root, &by_path, progress)? else { return Ok(None) };
        let file = |((path, size), digest)| File { path, digest, size };
        let files: Vec<File> = files.into_iter().zip(digests).map(file).collect();
        let artifact = artifact::artifact(&files);
        // Who reads it is stricter than who writes it; better to learn that now.
        artifact::files(&artifact.manifest)?;
        Ok(Some(Hashed { root, files, artifact }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, FolderError> {
        std::fs::read(self.root.join(path)).map_err(|source| FolderError::Read { path: path.to_owned(), source })
    }

    /// Every part that the index names has a folder.
    fn check_index(&self) -> Result<(), FolderError> {
        let index = self.read("model_index.json")?;
        let index: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&index).map_err(|error| FolderError::Index(format!("can't be read ({error})")))?;
        if !index.get("_class_name").is_some_and(serde_json::Value::is_string) {
            return Err(FolderError::Index("has no _class_name, so nobody knows which pipeline it is".into()));
        }
        for part in index.iter().filter_map(|(name, value)| is_part(value).then_some(name)) {
            let folder = format!("{part}/");
            if !self.files.iter().any(|(path, _)| path.starts_with(&folder)) {
                return Err(FolderError::Index(format!(
                    "names the part '{part}', and there is no folder of that name"
                )));
            }
        }
        Ok(())
    }

    fn check_weights(&self) -> Result<(), FolderError> {
        let weights = self.files.iter().filter(|(path, _)| layout::extension(path.as_bytes()) == "safetensors");
        let mut any = false;
        for (path, bytes) in weights {
            let read = |source| FolderError::Read { path: path.clone(), source };
            let mut file = std::fs::File::open(self.root.join(path)).map_err(read)?;
            safetensors::check(&mut file, *bytes)
                .map_err(read)?
                .map_err(|why| FolderError::Safetensors { path: path.clone(), why })?;
            any = true;
        }
        if any { Ok(()) } else { Err(FolderError::NoWeights) }
    }
}

impl Hashed {
    /// What an ImageModel pins when the folder is in a registry: its manifest's digest.
    pub fn digest(&self) -> Digest {
        self.artifact.digest
    }

    /// What an ImageModel pins when the folder lies anywhere else: the digest of its `sha256sum` listing.
    pub fn listing_digest(&self) -> Digest {
        Digest::of(&listing(self.files.iter().map(|file| (file.path.as_bytes(), file.digest))))
    }

    pub fn files(&self) -> &[File] {
        &self.files
    }
}

/// `"unet": ["diffusers", "UNet2DConditionModel"]`; a part that is left out is `[null, null]`.
fn is_part(value: &serde_json::Value) -> bool {
    value.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(serde_json::Value::is_string))
}
