//! Hands out the tensors of safetensors files by key, checked for shape and of the device's dtype.
//! Knows keys, shapes and bytes; does not know which model asks.

mod files;
mod fill;
mod header;
mod kernels;
mod tensors;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use easel_checkpoints::{Files, OpenFile};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use tch::{Kind, Tensor};

use self::files::{find_files, read_header};
use self::fill::Pending;
use self::header::Header;
use self::kernels::Kernel;
pub use self::tensors::Tensors;
use super::cuda::CudaCopies;
use super::cuda::runtime::CudaError;
use super::device::Placement;
use super::lora::{Layers, Registry, Shape, Site};
use crate::pipeline::LoadError;

/// Of an error that lists keys.
const LISTED_KEYS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{folder} has no {stem}.safetensors{}", if *.pickle { "; pickle files (.bin, .ckpt, .pt) are never read, convert them" } else { "" })]
    NoFile { folder: PathBuf, stem: &'static str, pickle: bool },
    #[error("{path} is not a safetensors file: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{path} is truncated or padded: its header promises {expected} bytes, it has {found}")]
    Length { path: PathBuf, expected: u64, found: u64 },
    #[error("{path} has the key '{key}' of another file of this model again")]
    Repeated { path: PathBuf, key: String },
    #[error("{path}: the tensor '{key}' has the dtype {dtype}; accepted are F32, F16 and BF16")]
    Dtype { path: PathBuf, key: String, dtype: Dtype },
    #[error("{path}: the tensor '{key}' is missing")]
    Missing { path: PathBuf, key: String },
    #[error("{path}: the tensor '{key}' has the shape {found:?}; the config asks for {expected:?}")]
    Shape { path: PathBuf, key: String, expected: Vec<i64>, found: Vec<usize> },
    #[error("{path}: {count} tensors are unknown to this model: {}", keys.join(", "))]
    Unknown { path: PathBuf, count: usize, keys: Vec<String> },
    #[error("failed to copy weights to the device")]
    Copy(#[source] CudaError),
    #[error("failed to make a tensor of '{key}'")]
    Tensor {
        key: String,
        #[source]
        source: tch::TchError,
    },
}

impl WeightsError {
    /// For `part` of a pipeline, such as `unet`.
    pub fn of(self, part: &str) -> LoadError {
        match self {
            Self::Dtype { .. } | Self::NoFile { .. } | Self::Malformed { .. } => {
                LoadError::Unsupported(format!("{part}: {self}"))
            }
            Self::Read { .. }
            | Self::Length { .. }
            | Self::Repeated { .. }
            | Self::Missing { .. }
            | Self::Shape { .. }
            | Self::Unknown { .. }
            | Self::Copy(_)
            | Self::Tensor { .. } => LoadError::Failed { part: part.to_owned(), source: Box::new(self) },
        }
    }
}

/// The tensors of one model, still on disk. Tensors that are asked for have their shape and place at once, and their
/// values when [`Weights::finish`] has read them all: so what does not fit is refused before gigabytes are read, files
/// are read in their order and by several threads, and parts that nobody asks for (such as a VAE's encoder) take no memory.
#[derive(Debug)]
pub struct Weights<'a> {
    folder: PathBuf,
    /// `unet`
    part: String,
    files: Vec<WeightsFile<'a>>,
    entries: BTreeMap<String, Entry>,
    /// What the last file's header says beside its tensors.
    metadata: Option<HashMap<String, String>>,
    /// Layers that were built of these.
    registry: Registry,
    placement: Placement,
    /// By which they go to a GPU, beside what it computes.
    copies: Option<&'static CudaCopies>,
    pending: RefCell<Vec<Pending>>,
    /// A tensor that is asked for twice is read once.
    taken: RefCell<BTreeMap<String, Tensor>>,
    /// Those of `taken` whose axes lie in another order than in their file.
    kernels: RefCell<BTreeMap<String, Kernel>>,
    bytes: Cell<u64>,
}

#[derive(Debug)]
struct WeightsFile<'a> {
    path: PathBuf,
    file: OpenFile<'a>,
    /// Where the header ends.
    data_start: u64,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    /// Of the tensor's first byte in the file.
    offset: u64,
    info: TensorInfo,
}

impl<'a> Weights<'a> {
    /// Opens `{stem}.safetensors` in a folder of a checkpoint: whole, in shards (`{stem}-00001-of-00002`), or a 16-bit
    /// variant.
    pub fn open(
        checkpoint: &'a Files,
        folder: &str,
        stem: &'static str,
        placement: Placement,
    ) -> Result<Self, WeightsError> {
        let mut weights = Self::none(checkpoint, folder, placement);
        for name in find_files(checkpoint, folder, stem)? {
            let file = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            weights.open_file(checkpoint, &file)?;
        }
        Ok(weights)
    }

    /// Opens one file.
    pub fn of_file(checkpoint: &'a Files, file: &str, placement: Placement) -> Result<Self, WeightsError> {
        let mut weights = Self::none(checkpoint, "", placement);
        weights.open_file(checkpoint, file)?;
        Ok(weights)
    }

    /// They go there by these copies, whatever the device.
    #[must_use]
    pub fn by(self, copies: &'static CudaCopies) -> Self {
        Self { copies: Some(copies), ..self }
    }

    fn none(checkpoint: &Files, folder: &str, placement: Placement) -> Self {
        Self {
            folder: checkpoint.path(folder),
            part: folder.to_owned(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            metadata: None,
            registry: Registry::default(),
            placement,
            copies: CudaCopies::of(placement.home()),
            pending: RefCell::default(),
            taken: RefCell::default(),
            kernels: RefCell::default(),
            bytes: Cell::new(0),
        }
    }

    fn open_file(&mut self, checkpoint: &'a Files, file: &str) -> Result<(), WeightsError> {
        let path = checkpoint.path(file);
        match checkpoint.open(file) {
            Ok(file) => self.add(&path, file),
            Err(source) => Err(WeightsError::Read { path, source }),
        }
    }

    fn add(&mut self, path: &Path, file: OpenFile<'a>) -> Result<(), WeightsError> {
        let Header { bytes: _, data_start, metadata } = read_header(path, &file)?;
        self.metadata.clone_from(metadata.metadata());
        for (key, info) in metadata.tensors() {
            let entry =
                Entry { file: self.files.len(), offset: data_start + info.data_offsets.0 as u64, info: info.clone() };
            if self.entries.insert(key.clone(), entry).is_some() {
                return Err(WeightsError::Repeated { path: path.to_owned(), key });
            }
        }
        self.files.push(WeightsFile { path: path.to_owned(), file, data_start });
        Ok(())
    }

    /// The whole file; narrow it with [`Section::at`].
    pub fn root(&self) -> Section<'_> {
        Section { weights: self, prefix: String::new() }
    }

    /// Whether a file has this key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Those handed out.
    pub fn tensors(&self) -> Tensors {
        self.taken.borrow().values().map(Tensor::shallow_clone).collect()
    }

    /// Bytes of the tensors handed out, in the device's dtype.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// As the file has it.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|entry| &entry.info.shape[..])
    }

    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.metadata.as_ref()
    }

    /// Those that were built of these so far.
    pub fn layers(&self) -> Layers {
        self.registry.layers()
    }

    /// Reads the values of every tensor that was handed out; before, they are undefined. Refuses keys that nobody asked
    /// for: they are a sign of a model that we would draw wrongly. `known` are prefixes of keys that are right to be
    /// there and not needed.
    pub fn finish(&self, known: &[&str]) -> Result<(), WeightsError> {
        let taken = self.taken.borrow();
        let is_known = |key: &str| taken.contains_key(key) || known.iter().any(|prefix| key.starts_with(prefix));
        let unknown: Vec<&String> = self.entries.keys().filter(|key| !is_known(key)).collect();
        if let Some(first) = unknown.first() {
            let keys = unknown.iter().take(LISTED_KEYS).map(|key| (*key).clone()).collect();
            return Err(WeightsError::Unknown { path: self.path_of(first), count: unknown.len(), keys });
        }
        fill::fill(&self.files, self.pending.take(), self.placement, self.copies)?;
        self.kernels
            .take()
            .into_iter()
            .try_for_each(|(key, kernel)| kernel.turn().map_err(|source| WeightsError::Tensor { key, source }))
    }

    /// The file that has the key, or the one that should: shards are many, so then their folder.
    fn path_of(&self, key: &str) -> PathBuf {
        match (self.entries.get(key), &self.files[..]) {
            (Some(entry), _) => self.files[entry.file].path.clone(),
            (None, [only]) => only.path.clone(),
            (None, _) => self.folder.clone(),
        }
    }

    /// [`Self::take`], for a convolution.
    fn take_kernel(&self, key: String, shape: [i64; 4]) -> Result<Tensor, WeightsError> {
        if let Some(kernel) = self.kernels.borrow().get(&key) {
            return Ok(kernel.turned());
        }
        let stored = self.take(key.clone(), &shape)?;
        if !Kernel::is_turned(shape, self.placement) {
            return Ok(stored);
        }
        let kernel = Kernel::new(stored, shape);
        let turned = kernel.turned();
        self.kernels.borrow_mut().insert(key, kernel);
        Ok(turned)
    }

    fn take(&self, key: String, shape: &[i64]) -> Result<Tensor, WeightsError> {
        if let Some(taken) = self.taken.borrow().get(&key).filter(|taken| taken.size() == shape) {
            return Ok(taken.shallow_clone());
        }
        let path = self.path_of(&key);
        let Some(Entry { file, offset, info }) = self.entries.get(&key) else {
            return Err(WeightsError::Missing { path, key });
        };
        let stored = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            dtype => return Err(WeightsError::Dtype { path, key, dtype }),
        };
        if !info.shape.iter().copied().map(i64::try_from).eq(shape.iter().copied().map(Ok)) {
            return Err(WeightsError::Shape { path, key, expected: shape.to_vec(), found: info.shape.clone() });
        }
        let (device, kind) = (self.placement.home(), self.placement.kind);
        let tensor = Tensor::f_empty(shape, (kind, device))
            .map_err(|source| WeightsError::Tensor { key: key.clone(), source })?;
        self.bytes.set(self.bytes.get() + (tensor.numel() * kind.elt_size_in_bytes()) as u64);
        let target = tensor.shallow_clone();
        self.pending.borrow_mut().push(Pending { file: *file, offset: *offset, stored, target });
        self.taken.borrow_mut().insert(key, tensor.shallow_clone());
        Ok(tensor)
    }
}

/// All keys below one prefix, as a module of the reference sees its own.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    weights: &'a Weights<'a>,
    prefix: String,
}

impl Section<'_> {
    /// One level down: `at("resnets").at(0)` is `resnets.0`.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: self.key(name) }
    }

    pub fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        self.weights.take(self.key(name), shape)
    }

    /// The layer that this section is.
    pub(super) fn site(&self, shape: Shape) -> Site {
        self.weights.registry.add(&self.weights.part, &self.prefix, shape)
    }

    /// `[output, input, side, side]` of a convolution, its axes in memory in the order that the device convolves fastest.
    pub fn kernel(&self, name: &str, shape: [i64; 4]) -> Result<Tensor, WeightsError> {
        self.weights.take_kernel(self.key(name), shape)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.weights.entries.contains_key(&self.key(name))
    }

    fn key(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
