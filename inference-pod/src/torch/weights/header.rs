//! The frame of a safetensors file: how long its header is, and whether what the header says of tensors fits the file.
//! Knows bytes and the format's rules; opens no file, and is all that the fuzz target of headers compiles.

use std::io;

use safetensors::tensor::Metadata;

/// The limit of the format itself; a longer header is an attack or not safetensors.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Where the tensors begin, and what is said of them: they fill the file without gap or overlap.
#[derive(Debug)]
pub(super) struct Header {
    /// The file's first bytes, up to `data_start`.
    pub(super) bytes: Vec<u8>,
    pub(super) data_start: u64,
    pub(super) metadata: Metadata,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Malformed(String),
    /// Bytes of the whole file.
    Length {
        expected: u64,
        found: u64,
    },
}

/// `found` are the file's bytes, and `read` fills a buffer from its beginning. Never asks for more than the file has.
pub(super) fn parse(found: u64, read: impl Fn(&mut [u8]) -> io::Result<()>) -> Result<Header, HeaderError> {
    let malformed = |reason: &str| HeaderError::Malformed(reason.to_owned());
    let mut length = [0; 8];
    read(&mut length).map_err(|_| malformed("it is shorter than 8 bytes"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(found) {
        return Err(malformed(&format!("its header would have {length} bytes")));
    }
    let data_start = 8 + length;
    let mut bytes = vec![0; data_start as usize];
    read(&mut bytes).map_err(|_| malformed("its header is cut off"))?;
    let metadata: Metadata = serde_json::from_slice(&bytes[8..]).map_err(|error| malformed(&error.to_string()))?;
    // What the header promises may be any number.
    let expected = data_start.saturating_add(metadata.data_len() as u64);
    if found != expected {
        return Err(HeaderError::Length { expected, found });
    }
    Ok(Header { bytes, data_start, metadata })
}
