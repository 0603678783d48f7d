//! Whether a file is a whole safetensors file, from its header and its length.
//! Knows the format's outside; which tensors a model needs is for who loads it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;

/// The format's own bound.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The inner error says why the file is not whole.
pub(super) fn check(file: &mut impl Read, bytes: u64) -> io::Result<Result<(), String>> {
    if bytes < 8 {
        return Ok(Err(format!("it has {bytes} bytes")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > bytes - 8 {
        return Ok(Err("its header is longer than the file, so it is cut off or in another format".into()));
    }
    let mut header = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact(&mut header)?;
    Ok(tensors(&header).and_then(|tensors| adjoin(tensors, bytes - 8 - length)))
}

#[derive(Deserialize)]
struct Tensor {
    /// Of bytes after the header.
    data_offsets: (u64, u64),
}

fn tensors(header: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let unreadable = |error: serde_json::Error| format!("its header can't be read: {error}");
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(unreadable)?;
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors.map(|(name, value)| Ok((name, serde_json::from_value(value).map_err(unreadable)?))).collect()
}

/// The format has no gaps, so tensors in order of place reach from the header to the end.
fn adjoin(mut tensors: Vec<(String, Tensor)>, data_bytes: u64) -> Result<(), String> {
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end = 0;
    for (name, Tensor { data_offsets: (first, last) }) in tensors {
        if first != end || last < first {
            return Err(format!("tensor {name} does not begin where the one before ends"));
        }
        end = last;
    }
    if end == data_bytes { Ok(()) } else { Err(format!("its tensors need {end} bytes and {data_bytes} are there")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(header: &str, data: usize) -> Result<(), String> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        check(&mut bytes.as_slice(), bytes.len() as u64).unwrap()
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;

    #[test]
    fn a_whole_file_is_taken() {
        assert_eq!(verdict(TWO, 6), Ok(()));
        assert_eq!(verdict("{}", 0), Ok(()));
    }

    #[test]
    fn a_file_that_is_cut_off_or_something_else_is_refused() {
        for (header, data, why) in [
            (TWO, 5, "need 6 bytes and 5 are there"),
            (TWO, 7, "need 6 bytes and 7 are there"),
            ("{", 0, "can't be read"),
            (r#"{"a":{"data_offsets":[1,2]}}"#, 2, "tensor a does not begin"),
            (r#"{"a":{"data_offsets":[0,2]},"b":{"data_offsets":[1,2]}}"#, 2, "tensor b does not begin"),
            (r#"{"a":{"data_offsets":[2,0]}}"#, 2, "tensor a does not begin"),
            (r#"{"a":{}}"#, 0, "can't be read"),
        ] {
            let refused = verdict(header, data).unwrap_err();
            assert!(refused.contains(why), "{refused:?} does not say {why:?}");
        }
        assert!(check(&mut &b"PK\x03\x04aaaaaaaaaa"[..], 14).unwrap().unwrap_err().contains("another format"));
        assert!(check(&mut &b"PK"[..], 2).unwrap().unwrap_err().contains("2 bytes"));
    }
}
