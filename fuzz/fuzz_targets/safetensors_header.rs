//! Headers of checkpoints: refused with a reason or taken; what is taken lies within the file, in order and without gaps.

#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the loader hashes the header's bytes; nobody does here")]
#[path = "../../inference-pod/src/torch/weights/header.rs"]
mod header;

fuzz_target!(|file: &[u8]| {
    let read = |buffer: &mut [u8]| {
        let bytes = file.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    };
    let Ok(header) = header::parse(file.len() as u64, read) else { return };
    let mut ends: Vec<_> = header.metadata.tensors().values().map(|info| info.data_offsets).collect();
    ends.sort_unstable();
    let mut at = 0;
    for (begin, end) in ends {
        assert!(begin == at && end >= begin, "a tensor begins at {begin}, and the one before ends at {at}");
        at = end;
    }
    assert_eq!(header.data_start + at as u64, file.len() as u64);
});
