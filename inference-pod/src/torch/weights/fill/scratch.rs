//! What one thread does with a piece: reads it to where it belongs, through memory of its own if it must.
//! Knows dtypes and devices; does not know which piece comes next.

#![allow(clippy::cast_possible_wrap, reason = "bytes and elements of a tensor, which libtorch counts in i64")]

use std::os::unix::fs::FileExt;

use tch::{Device, Kind, TchError, Tensor};

use super::pieces::{CONVERTED_ELEMENTS, PIECE_BYTES, Piece, Use, longest};
use super::read_into;
use crate::torch::cuda::CudaCopies;
use crate::torch::cuda::staging::Staging;
use crate::torch::device::Placement;
use crate::torch::weights::{WeightsError, WeightsFile};

/// Where a thread holds bytes that no tensor takes as they are.
pub(super) struct Scratch<'a> {
    tensor: Option<Tensor>,
    bytes: Vec<u8>,
    at: Placement,
    copies: Option<&'a CudaCopies>,
    staging: Option<Staging<'a, CudaCopies>>,
}

impl<'a> Scratch<'a> {
    /// Every tensor that shall be filled was allocated before this.
    pub(super) fn new(at: Placement, copies: Option<&'a CudaCopies>) -> Self {
        Self { tensor: None, bytes: Vec::new(), at, copies, staging: None }
    }

    pub(super) fn fill(&mut self, file: &WeightsFile, piece: &Piece) -> Result<(), WeightsError> {
        match &piece.destination {
            Use::AsItIs(part) => read_into(file, piece.offset, part),
            Use::Converted { stored, part } => self.convert(file, piece.offset, *stored, part),
            Use::Sent { stored, part } => self.send(file, piece.offset, *stored, part),
            Use::HashedOnly => {
                self.bytes.resize(piece.bytes as usize, 0);
                read_bytes(file, piece.offset, &mut self.bytes)
            }
        }
    }

    /// All is where it belongs.
    pub(super) fn finish(self) -> Result<(), WeightsError> {
        self.staging.map_or(Ok(()), |staging| staging.finish().map_err(WeightsError::Copy))
    }

    fn convert(&mut self, file: &WeightsFile, offset: u64, stored: Kind, part: &Tensor) -> Result<(), WeightsError> {
        let failed = failed(file);
        let read = self.read(file, offset, stored, part.size()[0])?;
        if self.at.home().is_cuda() {
            // To the device first: it converts faster than the processor, and half of the bytes are on their way.
            let there = read.f_to_device(self.at.home()).map_err(failed)?;
            return part.shallow_clone().f_copy_(&there).map_err(failed);
        }
        convert_into(part, &read).map_err(failed)
    }

    /// The processor converts: on the device, steps would have to wait for it.
    fn send(&mut self, file: &WeightsFile, offset: u64, stored: Kind, part: &Tensor) -> Result<(), WeightsError> {
        if stored == part.kind() {
            let sent = self.staging()?.send(part, |memory| read_bytes(file, offset, memory));
            return sent.map_err(WeightsError::Copy)?;
        }
        let read = self.read(file, offset, stored, part.size()[0])?;
        let sent = self.staging()?.send(part, |memory| {
            tensor_in(memory, part.kind(), part.size()[0]).and_then(|converted| convert_into(&converted, &read))
        });
        sent.map_err(WeightsError::Copy)?.map_err(failed(file))
    }

    fn staging(&mut self) -> Result<&mut Staging<'a, CudaCopies>, WeightsError> {
        if self.staging.is_none() {
            let made = self.copies.map(|copies| Staging::new(copies, PIECE_BYTES as usize));
            self.staging = made.transpose().map_err(WeightsError::Copy)?;
        }
        // Pieces are sent only where there are copies.
        let missing = || TchError::Kind("no copies beside computing".into());
        self.staging.as_mut().ok_or_else(|| WeightsError::Tensor { key: "a piece".into(), source: missing() })
    }

    /// In memory of ours, as it is in the file.
    fn read(&mut self, file: &WeightsFile, offset: u64, stored: Kind, elements: i64) -> Result<Tensor, WeightsError> {
        let read = self.tensor(stored, elements).map_err(failed(file))?.narrow(0, 0, elements);
        read_into(file, offset, &read)?;
        Ok(read)
    }

    /// At least as long as `elements`, of this dtype; for libtorch, on its way to a GPU, in memory that the GPU reads by
    /// itself.
    fn tensor(&mut self, stored: Kind, elements: i64) -> Result<&Tensor, TchError> {
        let by_torch = self.at.home().is_cuda() && self.copies.is_none();
        let fits = self.tensor.as_ref().is_some_and(|held| held.kind() == stored && held.size()[0] >= elements);
        if !fits {
            let home = if by_torch { self.at.home() } else { Device::Cpu };
            let elements = elements.max(longest(false, home) / stored.elt_size_in_bytes() as i64);
            let made = Tensor::f_empty([elements], (stored, Device::Cpu))?;
            self.tensor = Some(if by_torch { made.f_pin_memory(home)? } else { made });
        }
        self.tensor.as_ref().ok_or_else(|| TchError::Kind("no scratch tensor".into()))
    }
}

fn failed(file: &WeightsFile) -> impl Fn(TchError) -> WeightsError + Copy {
    move |source| WeightsError::Tensor { key: file.path.display().to_string(), source }
}

fn read_bytes(file: &WeightsFile, offset: u64, bytes: &mut [u8]) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Read { path: file.path.clone(), source };
    file.file.file().read_exact_at(bytes, offset).map_err(failed)?;
    file.file.hash(offset, bytes).map_err(failed)
}

/// On a CPU, by few at a time.
fn convert_into(part: &Tensor, read: &Tensor) -> Result<(), TchError> {
    let (mut begin, elements) = (0, part.size()[0]);
    while begin < elements {
        let count = CONVERTED_ELEMENTS.min(elements - begin);
        part.f_narrow(0, begin, count)?.f_copy_(&read.f_narrow(0, begin, count)?)?;
        begin += count;
    }
    Ok(())
}

/// A tensor that lies in `memory`, and must go before it.
#[allow(unsafe_code)]
fn tensor_in(memory: &mut [u8], kind: Kind, elements: i64) -> Result<Tensor, TchError> {
    let needed = elements as usize * kind.elt_size_in_bytes();
    if memory.len() != needed || !memory.as_ptr().addr().is_multiple_of(kind.elt_size_in_bytes()) {
        return Err(TchError::Shape(format!("{} bytes are not {elements} of {kind:?}", memory.len())));
    }
    // SAFETY: it is as long as that and aligned, and borrowed by nobody else.
    unsafe { Tensor::f_from_blob(memory.as_ptr(), &[elements], &[1], kind, Device::Cpu) }
}
