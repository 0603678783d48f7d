//! The weights of one part of a checkpoint, as its layers have them: where they are, and to where they go.
//! Knows devices and bytes; does not know keys or layers.

use tch::{Device, TchError, Tensor};

use crate::torch::cuda::meter::weights_go;

/// Handles of the same tensors as the layers': what one of them is given the other sees.
#[derive(Debug, Default)]
pub struct Tensors(Vec<Tensor>);

impl FromIterator<Tensor> for Tensors {
    fn from_iter<I: IntoIterator<Item = Tensor>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl Tensors {
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
    }

    /// From `device` into the host's memory, which a GPU then reads by itself. One at a time, so that no more than one
    /// is in both. Nobody may compute with them meanwhile, and afterwards only what is on the host.
    pub fn park(&self, device: Device) -> Result<(), TchError> {
        for tensor in &self.0 {
            let parked = tensor.f_to_device_(Device::Cpu, tensor.kind(), false, true)?;
            let parked = if device.is_cuda() { parked.f_pin_memory(device)? } else { parked };
            tensor.shallow_clone().f_set_data(&parked)?;
        }
        Ok(())
    }

    /// Back to `device`.
    pub fn wake(&self, device: Device) -> Result<(), TchError> {
        for tensor in &self.0 {
            // Blocking: the host's copy goes when this is done.
            let awake = tensor.f_to_device_(device, tensor.kind(), false, true)?;
            tensor.shallow_clone().f_set_data(&awake)?;
        }
        Ok(())
    }
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
        tensors.park(Device::Cpu).unwrap();
        places.push(layer.data_ptr());
        assert_eq!(layer, Tensor::from_slice(&[1.0f32, 2.0, 3.0]));
        tensors.wake(Device::Cpu).unwrap();
        places.push(layer.data_ptr());
        assert!(places[0] != places[1] && places[1] != places[2], "{places:?}");
        assert_eq!((layer.kind(), layer), (Kind::Float, Tensor::from_slice(&[1.0f32, 2.0, 3.0])));
    }
}
