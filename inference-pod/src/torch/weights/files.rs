//! Finds a model's safetensors files and reads their headers.
//! Knows the format's frame; reads no tensor.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;

use easel_checkpoints::{Files, OpenFile};
use safetensors::tensor::Metadata;

use super::WeightsError;

/// The limit of the format itself; a longer header is an attack or not safetensors.
const MAX_HEADER_BYTES: u64 = 100_000_000;

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

/// Where the tensors begin, and what the header says of them. `Metadata` checks that they fill the file without gap
/// or overlap; the file's length is checked here, before the first tensor is used. The header's bytes are hashed here.
pub(super) fn read_header(path: &Path, file: &OpenFile) -> Result<(u64, Metadata), WeightsError> {
    let malformed = |reason: &str| WeightsError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let found = file.size();
    let mut length = [0; 8];
    file.file().read_exact_at(&mut length, 0).map_err(|_| malformed("it is shorter than 8 bytes"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(found) {
        return Err(malformed(&format!("its header would have {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.file().read_exact_at(&mut header, 8).map_err(|_| malformed("its header is cut off"))?;
    file.hash(0, &length.to_le_bytes()).and_then(|()| file.hash(8, &header)).map_err(read)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(&error.to_string()))?;
    let expected = 8 + length + metadata.data_len() as u64;
    if found != expected {
        return Err(WeightsError::Length { path: path.to_owned(), expected, found });
    }
    Ok((8 + length, metadata))
}
