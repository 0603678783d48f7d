//! Reads bytes of files into tensors and has them hashed there: each byte once, in the files' order, by a few threads.
//! Knows dtypes and devices; does not know keys, models or digests.
//!
//! SHA-256 takes a file's bytes one after the other, so it is what the largest file's time is made of. While one thread
//! hashes what it has read, the others read on, and clear the memory that they read to.

#![allow(clippy::cast_possible_wrap, reason = "bytes and elements of a tensor, which libtorch counts in i64")]

mod huge;
mod pieces;
mod scratch;

use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use self::pieces::{Piece, cut};
use self::scratch::Scratch;
use super::{WeightsError, WeightsFile};
use crate::torch::cuda::CudaCopies;
use crate::torch::device::Placement;

/// Below this, a thread costs more than it saves.
const BYTES_FOR_A_THREAD: u64 = 16 << 20;
/// More read no faster from one disk or one memory.
const MAX_THREADS: u64 = 4;

/// A tensor whose values are still on disk.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) file: usize,
    /// Of the tensor's first byte.
    pub(super) offset: u64,
    /// The dtype in the file.
    pub(super) stored: Kind,
    /// Contiguous.
    pub(super) target: Tensor,
}

/// Beside what the device computes, if it has `copies`.
pub(super) fn fill(
    files: &[WeightsFile],
    mut pending: Vec<Pending>,
    at: Placement,
    copies: Option<&CudaCopies>,
) -> Result<(), WeightsError> {
    pending.sort_by_key(|pending| (pending.file, pending.offset));
    for file in files {
        read_ahead(file);
    }
    if at.home() == Device::Cpu {
        for Pending { target, .. } in &pending {
            huge::advise(target);
        }
    }
    let pieces = cut(files, &pending, at, copies.is_some());
    let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = (bytes / BYTES_FOR_A_THREAD).clamp(1, cores.min(MAX_THREADS));
    let work = Work { files, queue: Mutex::new(pieces.into_iter()), fault: Mutex::new(None), at, copies };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    work.fault.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// What the threads share.
struct Work<'a> {
    files: &'a [WeightsFile<'a>],
    queue: Mutex<std::vec::IntoIter<Piece>>,
    /// The first that happened; others follow from it.
    fault: Mutex<Option<WeightsError>>,
    at: Placement,
    copies: Option<&'a CudaCopies>,
}

impl Work<'_> {
    fn run(&self) {
        let unfinished = Unfinished(self.files);
        match self.fill() {
            Ok(()) => std::mem::forget(unfinished),
            Err(fault) => {
                self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
            }
        }
    }

    fn fill(&self) -> Result<(), WeightsError> {
        let mut scratch = Scratch::new(self.at, self.copies);
        while let Some(piece) = self.next() {
            scratch.fill(&self.files[piece.file], &piece)?;
        }
        scratch.finish()
    }

    fn next(&self) -> Option<Piece> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// A thread that fails or panics lets nobody wait for what it had in its hands.
struct Unfinished<'a>(&'a [WeightsFile<'a>]);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| file.file.abandon());
    }
}

/// Fills a contiguous tensor on the CPU with the bytes of a file, and has them hashed there. Not by mapping the file:
/// mapped pages would be mapped, copied and counted as ours, and a file that shrinks meanwhile would end the process.
/// Nor would what is drawn with be what was hashed, if somebody wrote to the file.
#[allow(unsafe_code)]
fn read_into(file: &WeightsFile, offset: u64, tensor: &Tensor) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Read { path: file.path.clone(), source };
    let (start, length) = (tensor.data_ptr().cast::<u8>(), tensor.numel() * tensor.kind().elt_size_in_bytes());
    let mut done = 0;
    while done < length {
        // SAFETY: `tensor` is contiguous, on the CPU and `length` bytes long, and lives until this function returns. No
        // one else reads or writes these bytes: pieces do not overlap, and nobody computes with a tensor before `fill`
        // has returned. The kernel writes at most `length - done` bytes from `start + done` on.
        let read = unsafe {
            libc::pread(
                file.file.file().as_raw_fd(),
                start.add(done).cast(),
                length - done,
                (offset + done as u64).cast_signed(),
            )
        };
        match usize::try_from(read) {
            Ok(0) => return Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => done += read,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(failed(error));
                }
            }
        }
    }
    // SAFETY: all `length` bytes have just been written, and nobody writes to them while `tensor` is borrowed here.
    let bytes = unsafe { std::slice::from_raw_parts(start, length) };
    file.file.hash(offset, bytes).map_err(failed)
}

/// A hint only: what it returns changes nothing.
#[allow(unsafe_code)]
fn read_ahead(file: &WeightsFile) {
    // SAFETY: the descriptor is open; the call reads no memory of ours.
    unsafe {
        libc::posix_fadvise(file.file.file().as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL);
    }
}
