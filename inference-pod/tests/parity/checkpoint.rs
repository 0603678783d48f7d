//! Copies of a golden checkpoint that a test may spoil.

use std::path::{Path, PathBuf};

use easel_checkpoints::Files;
use easel_checkpoints::digest::Listing;
use easel_inference::pipeline::{LoadError, Loader};
use easel_inference::torch::{Diffusion, Placement, TorchLoader};
use serde_json::Value;
use tch::Tensor;
use tempfile::TempDir;

use crate::golden;

pub(crate) const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
pub(crate) const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
pub(crate) const TEXT_ENCODER: &str = "text_encoder/model.safetensors";
pub(crate) const TEXT_ENCODER_2: &str = "text_encoder_2/model.safetensors";

pub(crate) struct Checkpoint {
    folder: TempDir,
}

/// The golden checkpoint as it is, in f32 on the CPU.
pub(crate) fn load(name: &str) -> Diffusion {
    load_from(&golden::folder().join(name)).unwrap()
}

/// As a pod does with bytes that nobody has proved.
pub(crate) fn load_from(folder: &Path) -> Result<Diffusion, LoadError> {
    let digest = Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
    let files = Files::unproved(folder.to_str().unwrap(), &digest, Box::new(|_, _| true));
    // What is refused by its names alone the loader shall refuse too.
    let files = files.unwrap_or_else(|_| Files::trusted(folder).unwrap());
    let loaded = TorchLoader::new(Placement::REFERENCE).load(&files);
    if loaded.is_ok() {
        files.prove().unwrap()
    } else {
        files.prove_unused().unwrap()
    };
    loaded
}

impl Checkpoint {
    pub(crate) fn copy_of(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        copy(&golden::folder().join(name), folder.path());
        Self { folder }
    }

    /// With the `ControlNet` that its goldens are of.
    pub(crate) fn controlled(name: &str) -> Self {
        let checkpoint = Self::copy_of(name);
        checkpoint.add(&format!("{name}_control"));
        checkpoint
    }

    /// What a golden of single parts has, beside or in place of what is there.
    pub(crate) fn add(&self, parts: &str) -> &Self {
        copy(&golden::folder().join(parts), self.folder.path());
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) -> &Self {
        let path = self.path(file);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
        self
    }

    pub(crate) fn edit_weights(&self, file: &str, edit: impl FnOnce(&mut Vec<(String, Tensor)>)) -> &Self {
        let path = self.path(file);
        let mut tensors = Tensor::read_safetensors(&path).unwrap();
        edit(&mut tensors);
        Tensor::write_safetensors(&tensors, path).unwrap();
        self
    }

    pub(crate) fn load(&self) -> Result<Diffusion, LoadError> {
        load_from(self.folder())
    }

    /// The refusal, with its causes.
    pub(crate) fn refusal(&self) -> String {
        let error = self.load().expect_err("the checkpoint must be refused");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
