//! Finds a model's safetensors files and reads their headers.
//! Knows names of files; reads no tensor.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::WeightsError;
use super::header::{self, Header, HeaderError};
use easel_checkpoints::{Files, OpenFile};

/// `{stem}.safetensors`: whole, a 16-bit variant, or in shards (`{stem}-00001-of-00002`).
pub(super) fn find_files(checkpoint: &Files, folder: &str, stem: &'static str) -> Result<Vec<String>, WeightsError> {
    let names: BTreeSet<String> = checkpoint.names(folder).map(str::to_owned).collect();
    let whole = ["", ".fp16", ".bf16"].map(|variant| format!("{stem}{variant}.safetensors"));
    let is_shard = |name: &&String| name.starts_with(&format!("{stem}-")) && name.ends_with(".safetensors");
    let chosen: Vec<_> = match whole.iter().find(|name| names.contains(*name)) {
        Some(name) => vec![name.clone()],
        None => names.iter().filter(is_shard).cloned().collect(),
    };
    if chosen.is_empty() {
        let is_pickle = |name: &String| [".bin", ".ckpt", ".pt", ".pth"].iter().any(|end| name.ends_with(end));
        return Err(WeightsError::NoFile {
            folder: checkpoint.path(folder),
            stem,
            pickle: names.iter().any(is_pickle),
        });
    }
    Ok(chosen)
}

/// The header of a file, whose bytes are hashed here. The file's length is checked before the first tensor is used.
pub(super) fn read_header(path: &Path, file: &OpenFile) -> Result<Header, WeightsError> {
    let path = path.to_owned();
    let parsed = header::parse(file.size(), |buffer| file.file().read_exact_at(buffer, 0));
    let header = match parsed {
        Ok(header) => header,
        Err(HeaderError::Malformed(reason)) => return Err(WeightsError::Malformed { path, reason }),
        Err(HeaderError::Length { expected, found }) => return Err(WeightsError::Length { path, expected, found }),
    };
    file.hash(0, &header.bytes).map_err(|source| WeightsError::Read { path, source })?;
    Ok(header)
}
