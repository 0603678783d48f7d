//! Reads bytes of files into tensors: each byte once, in the files' order, by a few threads.
//! Knows dtypes and devices; does not know keys or models.

#![allow(clippy::cast_possible_wrap, reason = "bytes and elements of a tensor, which libtorch counts in i64")]

use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, TchError, Tensor};

use super::{WeightsError, WeightsFile};
use crate::torch::device::Placement;

/// Read at once into a tensor that takes the bytes as they are.
const PIECE_BYTES: i64 = 8 << 20;
/// Converted at once: in the processor's cache between reading and converting, and below what libtorch would share
/// among threads of its own (`GRAIN_SIZE` of TensorIterator.h), for ours are busy already.
const CONVERTED_ELEMENTS: i64 = 32_000;
/// Below this, a thread costs more than it saves.
const BYTES_FOR_A_THREAD: i64 = 16 << 20;
/// More read no faster from one disk or one memory.
const MAX_THREADS: i64 = 4;
/// Pages of 2 MiB are worth it from here on: the kernel clears and maps one of them faster than 512 small ones.
const HUGE_PAGE_BYTES: usize = 2 << 20;

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

/// A part of a tensor, `[elements]`, that shares its memory.
struct Piece {
    file: usize,
    offset: u64,
    stored: Kind,
    part: Tensor,
}

pub(super) fn fill(files: &[WeightsFile], mut pending: Vec<Pending>, at: Placement) -> Result<(), WeightsError> {
    pending.sort_by_key(|pending| (pending.file, pending.offset));
    for file in files {
        read_ahead(file);
    }
    let mut pieces = Vec::new();
    let mut bytes = 0;
    for pending in &pending {
        advise_huge_pages(&pending.target, at.device);
        bytes += pending.target.numel() as i64 * pending.stored.elt_size_in_bytes() as i64;
        cut(pending, &mut pieces);
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
    let threads = (bytes / BYTES_FOR_A_THREAD).clamp(1, cores.min(MAX_THREADS));
    let queue = Mutex::new(pieces.into_iter());
    let work = || {
        let mut scratch = Scratch { tensor: None, at };
        while let Some(piece) = next(&queue) {
            scratch.fill(&files[piece.file], piece)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined =
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.fold(own, Result::and)
    })
}

fn next(queue: &Mutex<std::vec::IntoIter<Piece>>) -> Option<Piece> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn cut(pending: &Pending, pieces: &mut Vec<Piece>) {
    let Pending { file, offset, stored, target } = pending;
    let (flat, size) = (target.view([-1]), stored.elt_size_in_bytes() as i64);
    let (mut begin, elements) = (0, flat.size()[0]);
    while begin < elements {
        let count = (PIECE_BYTES / size).min(elements - begin);
        let part = flat.narrow(0, begin, count);
        pieces.push(Piece { file: *file, offset: offset + (begin * size) as u64, stored: *stored, part });
        begin += count;
    }
}

/// Where a thread holds bytes that a tensor can't take as they are.
struct Scratch {
    tensor: Option<Tensor>,
    at: Placement,
}

impl Scratch {
    fn fill(&mut self, file: &WeightsFile, piece: Piece) -> Result<(), WeightsError> {
        let Piece { file: _, offset, stored, part } = piece;
        let Placement { device, kind } = self.at;
        if device == Device::Cpu && stored == kind {
            return read_into(file, offset, &part);
        }
        let (elements, size) = (part.size()[0], stored.elt_size_in_bytes() as i64);
        let longest = if device == Device::Cpu { CONVERTED_ELEMENTS } else { PIECE_BYTES / size };
        let failed = |source: TchError| WeightsError::Tensor { key: file.path.display().to_string(), source };
        let mut begin = 0;
        while begin < elements {
            let count = longest.min(elements - begin);
            let bytes = self.tensor(stored, longest).map_err(failed)?.narrow(0, 0, count);
            read_into(file, offset + (begin * size) as u64, &bytes)?;
            // To the device first: it converts faster than the processor, and half of the bytes are on their way.
            let bytes = bytes.f_to_device(device).map_err(failed)?;
            part.narrow(0, begin, count).f_copy_(&bytes).map_err(failed)?;
            begin += count;
        }
        Ok(())
    }

    /// At least as long as `elements`, of this dtype; on its way to a GPU in memory that the GPU reads by itself.
    fn tensor(&mut self, stored: Kind, elements: i64) -> Result<&Tensor, TchError> {
        let fits = self.tensor.as_ref().is_some_and(|held| held.kind() == stored && held.size()[0] >= elements);
        if !fits {
            let made = Tensor::f_empty([elements], (stored, Device::Cpu))?;
            let made = if self.at.device.is_cuda() { made.f_pin_memory(self.at.device)? } else { made };
            self.tensor = Some(made);
        }
        self.tensor.as_ref().ok_or_else(|| TchError::Kind("no scratch tensor".into()))
    }
}

/// Fills a contiguous tensor on the CPU with the bytes of a file. Not by mapping the file: mapped pages would be mapped,
/// copied and counted as ours, and a file that shrinks meanwhile would end the process.
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
                file.file.as_raw_fd(),
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
    Ok(())
}

/// A hint only: what it returns changes nothing.
#[allow(unsafe_code)]
fn read_ahead(file: &WeightsFile) {
    // SAFETY: the descriptor is open; the call reads no memory of ours.
    unsafe {
        libc::posix_fadvise(file.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL);
    }
}

/// A hint only, for the whole huge pages inside of the tensor.
#[allow(unsafe_code)]
fn advise_huge_pages(tensor: &Tensor, device: Device) {
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if device != Device::Cpu || length < 2 * HUGE_PAGE_BYTES {
        return;
    }
    let start = tensor.data_ptr();
    let begin = (start as usize).next_multiple_of(HUGE_PAGE_BYTES);
    let end = (start as usize + length) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // SAFETY: `begin..end` lies within the tensor's memory, and the advice changes how it is mapped, not what is in it.
    unsafe {
        libc::madvise(start.byte_add(begin - start as usize).cast(), end - begin, libc::MADV_HUGEPAGE);
    }
}
