//! Tensors between a device and pinned memory of the host, beside what the device computes. Knows blocks of memory; does
//! not know layers.

#![allow(clippy::cast_possible_wrap, reason = "elements of a tensor, which libtorch counts in i64")]

use tch::{Device, TchError, Tensor};

use super::copies::{Copies, Queue};
use super::runtime::{CudaError, Way};
use super::staging::Staging;

/// Tensors begin at multiples of it, as libtorch's own on the host do.
const ALIGNMENT: usize = 64;

/// What is copied from now on is copied after what the device was given to compute: that may still use memory that
/// libtorch has given to new tensors since, or write what shall be copied.
pub(super) fn copies_wait_for_computing(copies: &impl Copies) -> Result<(), CudaError> {
    let given = copies.event()?;
    copies.record(Queue::Computing, &given)?;
    copies.copies_wait(&given)
}

/// Where a tensor is, and how many bytes it has.
pub(super) fn block(tensor: &Tensor) -> Result<(*mut u8, usize), CudaError> {
    if !tensor.is_contiguous() {
        return Err(CudaError::Layout("it is not contiguous"));
    }
    Ok((tensor.data_ptr().cast(), tensor.numel() * tensor.kind().elt_size_in_bytes()))
}

/// The tensors' bytes in the host's memory, and where each begins. They are all there when this returns.
#[allow(unsafe_code)]
pub(in crate::torch) fn to_host<C: Copies>(
    copies: &C,
    tensors: &[Tensor],
) -> Result<(C::Memory, Vec<usize>), CudaError> {
    let blocks: Vec<_> = tensors.iter().map(block).collect::<Result<_, _>>()?;
    let mut length = 0;
    let mut place = |bytes: usize| {
        let start = length;
        length += bytes.next_multiple_of(ALIGNMENT);
        start
    };
    let places: Vec<usize> = blocks.iter().map(|(_, bytes)| place(*bytes)).collect();
    let (mut memory, arrived) = (copies.memory(length)?, copies.event()?);
    let start = memory.as_mut().as_mut_ptr();
    copies_wait_for_computing(copies)?;
    let outcome = blocks.iter().zip(&places).try_for_each(|((from, bytes), place)| {
        // SAFETY: `place + bytes` is within `memory`, and `from` are the `bytes` of a tensor that is borrowed; neither goes
        // before what was begun has arrived. If that can't be waited for, the device has failed, and `memory` never goes.
        unsafe { copies.copy(start.add(*place), from.cast_const(), *bytes, Way::ToHost) }
    });
    if let Err(error) = arrive(copies, &arrived) {
        std::mem::forget(memory);
        return Err(error);
    }
    outcome.map(|()| (memory, places))
}

/// New tensors like `tensors`, on a device. They are filled when this returns. What they are copied from is pinned.
#[allow(unsafe_code)]
pub(in crate::torch) fn to_device(
    copies: &impl Copies,
    tensors: &[Tensor],
    device: Device,
) -> Result<Vec<Tensor>, MoveError> {
    let made = like(tensors, device)?;
    let arrived = copies.event()?;
    copies_wait_for_computing(copies)?;
    let outcome = tensors.iter().zip(&made).try_for_each(|(from, to)| {
        let ((from, bytes), (to, _)) = (block(from)?, block(to)?);
        // SAFETY: the tensors have as many bytes, and neither goes before what was begun has arrived, or else the new ones
        // never go. If it can't be waited for, the device has failed and reads nothing any more.
        unsafe { copies.copy(to, from.cast_const(), bytes, Way::ToDevice) }
    });
    if let Err(error) = arrive(copies, &arrived) {
        std::mem::forget(made);
        return Err(error.into());
    }
    outcome?;
    Ok(made)
}

/// The same, of what is not pinned: through two halves of so many bytes, which the processor fills.
pub(in crate::torch) fn to_device_through(
    copies: &impl Copies,
    half_bytes: usize,
    tensors: &[Tensor],
    device: Device,
) -> Result<Vec<Tensor>, MoveError> {
    let made = like(tensors, device)?;
    let mut staging = Staging::new(copies, half_bytes)?;
    for (from, to) in tensors.iter().zip(&made) {
        let elements = half_bytes / from.kind().elt_size_in_bytes();
        let (from, to) = (from.f_view([-1])?, to.f_view([-1])?);
        for begin in (0..from.numel()).step_by(elements) {
            let count = elements.min(from.numel() - begin);
            let part = |tensor: &Tensor| tensor.f_narrow(0, begin as i64, count as i64);
            let read = part(&from)?;
            staging.send(&part(&to)?, |memory| read.f_copy_data_u8(memory, count))??;
        }
    }
    staging.finish()?;
    Ok(made)
}

fn like(tensors: &[Tensor], device: Device) -> Result<Vec<Tensor>, TchError> {
    tensors.iter().map(|tensor| Tensor::f_empty(tensor.size(), (tensor.kind(), device))).collect()
}

/// Also after a failure: nothing may be freed that is still copied.
fn arrive<C: Copies>(copies: &C, arrived: &C::Event) -> Result<(), CudaError> {
    copies.record(Queue::Copying, arrived)?;
    copies.wait(arrived)
}

#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error(transparent)]
    Torch(#[from] TchError),
}
