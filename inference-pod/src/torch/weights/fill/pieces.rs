//! Cuts files into the pieces that a thread reads at once, so that every byte of a file which shall be hashed is in one.
//! Knows offsets, dtypes and devices; reads nothing.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::Pending;
use crate::torch::device::Placement;
use crate::torch::weights::WeightsFile;

/// Of a tensor that takes the bytes as they are, or of a GPU's.
pub(super) const PIECE_BYTES: i64 = 8 << 20;
/// Of what passes through a thread's own memory: within the processor's cache between reading, hashing and converting.
const SCRATCH_BYTES: i64 = 512 << 10;
/// Converted at once: below what libtorch would share among threads of its own (`GRAIN_SIZE` of TensorIterator.h), for
/// ours are busy already.
pub(super) const CONVERTED_ELEMENTS: i64 = 32_000;

/// Some bytes of a file, and what becomes of them.
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) destination: Use,
}

pub(super) enum Use {
    /// A part of a tensor, `[elements]`, that shares its memory.
    AsItIs(Tensor),
    /// The same, of another dtype or on another device.
    Converted { stored: Kind, part: Tensor },
    /// The same, on a GPU that has a queue for copies.
    Sent { stored: Kind, part: Tensor },
    /// Nobody asked for it.
    HashedOnly,
}

/// `pending` is in the order of files and offsets. Headers were read and hashed before.
pub(super) fn cut(files: &[WeightsFile], pending: &[Pending], at: Placement, is_sent: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut pending = pending.iter().peekable();
    for (index, WeightsFile { path: _, file, data_start }) in files.iter().enumerate() {
        let mut reached = *data_start;
        while let Some(next) = pending.next_if(|next| next.file == index) {
            if !file.is_proved() {
                cut_unused(index, reached..next.offset, &mut pieces);
            }
            reached = next.offset + cut_tensor(next, at, is_sent, &mut pieces);
        }
        if !file.is_proved() {
            cut_unused(index, reached..file.size(), &mut pieces);
        }
    }
    pieces
}

/// Bytes in the file of one piece of a tensor.
pub(super) fn longest(as_it_is: bool, device: Device) -> i64 {
    if as_it_is || device.is_cuda() { PIECE_BYTES } else { SCRATCH_BYTES }
}

/// Gives the tensor's bytes in the file.
fn cut_tensor(pending: &Pending, at: Placement, is_sent: bool, pieces: &mut Vec<Piece>) -> u64 {
    let Pending { file, offset, stored, target } = pending;
    let (keeps, on_cpu) = (*stored == at.kind, at.home() == Device::Cpu);
    // What is sent is converted on the host.
    let longest = if is_sent { longest(keeps, Device::Cpu) } else { longest(keeps && on_cpu, at.home()) };
    let (flat, size) = (target.view([-1]), stored.elt_size_in_bytes() as i64);
    let (mut begin, elements) = (0, flat.size()[0]);
    while begin < elements {
        let count = (longest / size).min(elements - begin);
        let part = flat.narrow(0, begin, count);
        let destination = match *stored {
            stored if is_sent => Use::Sent { stored, part },
            _ if keeps && on_cpu => Use::AsItIs(part),
            stored => Use::Converted { stored, part },
        };
        let (offset, bytes) = (offset + (begin * size) as u64, (count * size) as u64);
        pieces.push(Piece { file: *file, offset, bytes, destination });
        begin += count;
    }
    (elements * size) as u64
}

fn cut_unused(file: usize, mut range: Range<u64>, pieces: &mut Vec<Piece>) {
    while range.start < range.end {
        let bytes = (SCRATCH_BYTES as u64).min(range.end - range.start);
        pieces.push(Piece { file, offset: range.start, bytes, destination: Use::HashedOnly });
        range.start += bytes;
    }
}
