//! One large file that several threads read in parts, hashed in the order of its bytes by whoever has the next part.
//! Knows one file; does not know where its bytes go.

use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{Proof, State};
use crate::digest::Digest;

/// A file of a checkpoint, open for reading at any place.
#[derive(Debug)]
pub struct OpenFile<'a> {
    file: File,
    size: u64,
    hashing: Option<Hashing<'a>>,
}

#[derive(Debug)]
struct Hashing<'a> {
    proof: &'a Proof<'a>,
    /// Of the file in the listing.
    index: usize,
    so_far: Mutex<SoFar>,
    moved: Condvar,
}

#[derive(Debug)]
struct SoFar {
    hash: Sha256,
    /// Bytes hashed.
    at: u64,
    /// A part will never come.
    abandoned: bool,
}

impl<'a> OpenFile<'a> {
    pub(super) fn new(file: File, size: u64, proof: Option<(&'a Proof<'a>, usize)>) -> Self {
        let hashing = proof.map(|(proof, index)| Hashing {
            proof,
            index,
            so_far: Mutex::new(SoFar { hash: Sha256::new(), at: 0, abandoned: false }),
            moved: Condvar::new(),
        });
        Self { file, size, hashing }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it was hashed before: then [`OpenFile::hash`] does nothing, and parts that nobody needs may be left out.
    pub fn is_proved(&self) -> bool {
        self.hashing.is_none()
    }

    /// Takes the bytes that were read at `offset`, after those before have been hashed; waits until then. Every byte must
    /// come once. Whoever hands parts over must take them up in order, so that the part that is waited for is always in
    /// somebody's hands.
    pub fn hash(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(Hashing { proof, index, so_far, moved }) = &self.hashing else { return Ok(()) };
        let so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = moved.wait_while(so_far, |so_far| so_far.at < offset && !so_far.abandoned);
        let mut so_far = turn.unwrap_or_else(PoisonError::into_inner);
        if so_far.abandoned || so_far.at != offset {
            return Err(io::Error::other("another part of the file could not be read"));
        }
        so_far.hash.update(bytes);
        so_far.at += bytes.len() as u64;
        if so_far.at == self.size {
            proof.settle(*index, State::Open, Digest::finish(so_far.hash.clone()));
        }
        drop(so_far);
        moved.notify_all();
        proof.count(bytes.len() as u64)
    }

    /// Nobody needs to wait for the rest any more.
    pub fn abandon(&self) {
        if let Some(Hashing { proof: _, index: _, so_far, moved }) = &self.hashing {
            so_far.lock().unwrap_or_else(PoisonError::into_inner).abandoned = true;
            moved.notify_all();
        }
    }
}
