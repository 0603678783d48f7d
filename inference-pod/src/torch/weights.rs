//! Reads safetensors files and hands out their tensors by key, checked for shape and brought to the device's dtype.
//! Knows keys, shapes and bytes; does not know which model asks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Kind, Tensor};

use super::device::Placement;
use crate::pipeline::LoadError;

/// The limit of the format itself; a longer header is an attack or not safetensors.
const MAX_HEADER_BYTES: u64 = 100_000_000;
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
    #[error("the key '{key}' has dtype {dtype}; supported are F32, F16 and BF16")]
    Dtype { key: String, dtype: Dtype },
    #[error("the key '{key}' is missing")]
    Missing { key: String },
    #[error("the key '{key}' has shape {found:?}, expected {expected:?}")]
    Shape { key: String, expected: Vec<i64>, found: Vec<usize> },
    #[error("{count} keys are unknown to this model: {}", keys.join(", "))]
    Unknown { count: usize, keys: Vec<String> },
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
            | Self::Tensor { .. } => LoadError::Failed { part: part.to_owned(), source: Box::new(self) },
        }
    }
}

/// The tensors of one model, still on disk. A tensor is read when it is asked for, so that host memory never holds
/// more than one of them, and parts that nobody asks for (such as a VAE's encoder) cost nothing.
#[derive(Debug)]
pub struct Weights {
    files: Vec<File>,
    entries: BTreeMap<String, Entry>,
    placement: Placement,
    taken: RefCell<BTreeSet<String>>,
    bytes: Cell<u64>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    /// Of the tensor's first byte in the file.
    offset: u64,
    info: TensorInfo,
}

impl Weights {
    /// Opens `{stem}.safetensors` in a folder: whole, in shards (`{stem}-00001-of-00002`), or a 16-bit variant.
    pub fn open(folder: &Path, stem: &'static str, placement: Placement) -> Result<Self, WeightsError> {
        let mut weights = Self {
            files: Vec::new(),
            entries: BTreeMap::new(),
            placement,
            taken: RefCell::default(),
            bytes: Cell::new(0),
        };
        for path in find_files(folder, stem)? {
            weights.add(&path)?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let read = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let (data_start, metadata) = read_header(path, &file)?;
        for (key, info) in metadata.tensors() {
            let entry =
                Entry { file: self.files.len(), offset: data_start + info.data_offsets.0 as u64, info: info.clone() };
            if self.entries.insert(key.clone(), entry).is_some() {
                return Err(WeightsError::Repeated { path: path.to_owned(), key });
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The whole file; narrow it with [`Section::at`].
    pub fn root(&self) -> Section<'_> {
        Section { weights: self, prefix: String::new() }
    }

    /// Bytes of the tensors handed out, in the device's dtype.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Refuses keys that nobody asked for: they are a sign of a model that we would draw wrongly.
    /// `known` are prefixes of keys that are right to be there and not needed.
    pub fn finish(&self, known: &[&str]) -> Result<(), WeightsError> {
        let taken = self.taken.borrow();
        let is_known = |key: &str| taken.contains(key) || known.iter().any(|prefix| key.starts_with(prefix));
        let unknown: Vec<&String> = self.entries.keys().filter(|key| !is_known(key)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let keys = unknown.iter().take(LISTED_KEYS).map(|key| (*key).clone()).collect();
        Err(WeightsError::Unknown { count: unknown.len(), keys })
    }

    fn take(&self, key: String, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let Some(Entry { file, offset, info }) = self.entries.get(&key) else {
            return Err(WeightsError::Missing { key });
        };
        let source_kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            dtype => return Err(WeightsError::Dtype { key, dtype }),
        };
        if !info.shape.iter().copied().map(i64::try_from).eq(shape.iter().copied().map(Ok)) {
            return Err(WeightsError::Shape { key, expected: shape.to_vec(), found: info.shape.clone() });
        }
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        self.files[*file]
            .read_exact_at(&mut bytes, *offset)
            .map_err(|source| WeightsError::Read { path: PathBuf::from(&key), source })?;
        let Placement { device, kind } = self.placement;
        let tensor = Tensor::f_from_data_size(&bytes, shape, source_kind)
            .and_then(|tensor| tensor.f_to_device(device))
            .and_then(|tensor| tensor.f_to_kind(kind));
        let tensor = tensor.map_err(|source| WeightsError::Tensor { key: key.clone(), source })?;
        self.bytes.set(self.bytes.get() + (tensor.numel() * kind.elt_size_in_bytes()) as u64);
        self.taken.borrow_mut().insert(key);
        Ok(tensor)
    }
}

/// All keys below one prefix, as a module of the reference sees its own.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    weights: &'a Weights,
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

    pub fn contains(&self, name: &str) -> bool {
        self.weights.entries.contains_key(&self.key(name))
    }

    fn key(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

fn find_files(folder: &Path, stem: &'static str) -> Result<Vec<PathBuf>, WeightsError> {
    let read = |source| WeightsError::Read { path: folder.to_owned(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        names.insert(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    let whole = ["", ".fp16", ".bf16"].map(|variant| format!("{stem}{variant}.safetensors"));
    let is_shard = |name: &&String| name.starts_with(&format!("{stem}-")) && name.ends_with(".safetensors");
    let chosen: Vec<_> = match whole.iter().find(|name| names.contains(*name)) {
        Some(name) => vec![folder.join(name)],
        None => names.iter().filter(is_shard).map(|name| folder.join(name)).collect(),
    };
    if chosen.is_empty() {
        let is_pickle = |name: &String| [".bin", ".ckpt", ".pt", ".pth"].iter().any(|end| name.ends_with(end));
        return Err(WeightsError::NoFile { folder: folder.to_owned(), stem, pickle: names.iter().any(is_pickle) });
    }
    Ok(chosen)
}

/// Where the tensors begin, and what the header says of them. `Metadata` checks that they fill the file without gap
/// or overlap; the file's length is checked here, before the first tensor is used.
fn read_header(path: &Path, mut file: &File) -> Result<(u64, Metadata), WeightsError> {
    let malformed = |reason: &str| WeightsError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let found = file.metadata().map_err(read)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| malformed("it is shorter than 8 bytes"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(found) {
        return Err(malformed(&format!("its header would have {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(|_| malformed("its header is cut off"))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(&error.to_string()))?;
    let expected = 8 + length + metadata.data_len() as u64;
    if found != expected {
        return Err(WeightsError::Length { path: path.to_owned(), expected, found });
    }
    Ok((8 + length, metadata))
}
