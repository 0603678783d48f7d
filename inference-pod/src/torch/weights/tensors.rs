//! The weights of one part of a checkpoint, as its layers have them: where they are, and to where they go.
//! Knows devices and bytes; does not know keys or layers.

use std::cell::RefCell;

use tch::{Device, TchError, Tensor};

use crate::torch::cuda::CudaCopies;
use crate::torch::cuda::meter::weights_go;
use crate::torch::cuda::moves::{MoveError, to_device, to_device_through, to_host};
use crate::torch::cuda::runtime::Pinned;

/// Of the two halves through which goes what is not pinned.
const HALF_BYTES: usize = 8 << 20;

/// Handles of the same tensors as the layers': what one of them is given the other sees.
#[derive(Debug, Default)]
pub struct Tensors {
    tensors: Vec<Tensor>,
    /// What they lie in while they are parked. Nobody looks into a parked tensor but [`Self::wake`].
    pinned: RefCell<Option<Pinned>>,
}

impl FromIterator<Tensor> for Tensors {
    fn from_iter<I: IntoIterator<Item = Tensor>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect(), pinned: RefCell::default() }
    }
}

impl Tensors {
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
    }

    /// From `device` into the host's memory, which a GPU then reads by itself: beside what the device computes, if it has
    /// `copies`. Nobody may compute with them meanwhile, and afterwards only what is on the host. If it fails, nobody may
    /// at all.
    pub fn park(&self, device: Device, copies: Option<&CudaCopies>) -> Result<(), MoveError> {
        match copies {
            Some(copies) => self.park_beside(copies),
            None => Ok(self.park_by_torch(device)?),
        }
    }

    /// Back to `device`.
    pub fn wake(&self, device: Device, copies: Option<&CudaCopies>) -> Result<(), MoveError> {
        let Some(copies) = copies else { return Ok(self.wake_by_torch(device)?) };
        let is_pinned = self.pinned.borrow().is_some();
        let awake = if is_pinned {
            to_device(copies, &self.tensors, device)?
        } else {
            to_device_through(copies, HALF_BYTES, &self.tensors, device)?
        };
        self.put(&awake)?;
        self.pinned.take();
        Ok(())
    }

    fn park_beside(&self, copies: &CudaCopies) -> Result<(), MoveError> {
        let (memory, places) = to_host(copies, &self.tensors)?;
        let parked: Result<Vec<Tensor>, TchError> =
            self.tensors.iter().zip(places).map(|(tensor, place)| view(&memory, place, tensor)).collect();
        self.pinned.replace(Some(memory));
        Ok(self.put(&parked?)?)
    }

    fn put(&self, others: &[Tensor]) -> Result<(), TchError> {
        self.tensors.iter().zip(others).try_for_each(|(tensor, other)| tensor.shallow_clone().f_set_data(other))
    }

    /// One at a time, so that no more than one is in both.
    fn park_by_torch(&self, device: Device) -> Result<(), TchError> {
        for tensor in &self.tensors {
            let parked = tensor.f_to_device_(Device::Cpu, tensor.kind(), false, true)?;
            let parked = if device.is_cuda() { parked.f_pin_memory(device)? } else { parked };
            tensor.shallow_clone().f_set_data(&parked)?;
        }
        Ok(())
    }

    fn wake_by_torch(&self, device: Device) -> Result<(), TchError> {
        for tensor in &self.tensors {
            // Blocking: the host's copy goes when this is done.
            let awake = tensor.f_to_device_(device, tensor.kind(), false, true)?;
            tensor.shallow_clone().f_set_data(&awake)?;
        }
        Ok(())
    }
}

/// A tensor that lies in `memory`, and looks like `like`, which was copied there.
#[allow(unsafe_code)]
fn view(memory: &Pinned, place: usize, like: &Tensor) -> Result<Tensor, TchError> {
    let start = memory.as_ref()[place..].as_ptr();
    // SAFETY: `like` has as many bytes from `place` on. The view goes into `Tensors`, which keep the memory until they have
    // other tensors; nobody reads a parked tensor, and its end touches no memory.
    unsafe { Tensor::f_from_blob(start, &like.size(), &like.stride(), like.kind(), Device::Cpu) }
}

/// The layers' go with these.
impl Drop for Tensors {
    fn drop(&mut self) {
        weights_go();
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn a_layer_sees_the_weights_wherever_they_were_and_the_former_memory_is_not_its_own() {
        let _without_gradients = tch::no_grad_guard();
        let layer = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
        let tensors: Tensors = [layer.shallow_clone()].into_iter().collect();
        assert_eq!(tensors.bytes(), 12);
        let mut places = vec![layer.data_ptr()];
        tensors.park(Device::Cpu, None).unwrap();
        places.push(layer.data_ptr());
        assert_eq!(layer, Tensor::from_slice(&[1.0f32, 2.0, 3.0]));
        tensors.wake(Device::Cpu, None).unwrap();
        places.push(layer.data_ptr());
        assert!(places[0] != places[1] && places[1] != places[2], "{places:?}");
        assert_eq!((layer.kind(), layer), (Kind::Float, Tensor::from_slice(&[1.0f32, 2.0, 3.0])));
    }
}
