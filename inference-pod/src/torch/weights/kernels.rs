//! The order of a convolution's axes in memory. Knows devices and strides; does not know keys, files or models.
//!
//! oneDNN, which convolves on CPUs, computes with channels last, and would turn the kernel and what it is shown at every
//! call: measured, a tenth of a call's time at 64² pixels with 128 channels and a third at 512² with 64. libtorch takes
//! the order from the strides, and what comes out has it as well. GPUs keep the order of the files: there, group norms know
//! no other.

use tch::{Device, TchError, Tensor};

use crate::torch::device::Placement;

/// Turned at a time: what is copied stays in the processor's cache.
const ELEMENTS_AT_ONCE: i64 = 1 << 18;

/// A kernel whose values are still to come, in the order of their file.
#[derive(Debug)]
pub(super) struct Kernel {
    stored: Tensor,
    shape: [i64; 4],
}

impl Kernel {
    /// Whether a device wants the axes in another order. A single pixel has but one order.
    pub(super) fn is_turned(shape: [i64; 4], at: Placement) -> bool {
        at.device == Device::Cpu && shape[2] * shape[3] > 1
    }

    /// `stored` is contiguous and of this shape.
    pub(super) fn new(stored: Tensor, shape: [i64; 4]) -> Self {
        Self { stored, shape }
    }

    /// The same memory, seen as `[output, input, h, w]` with `input` innermost. Its values are right after [`Self::turn`].
    pub(super) fn turned(&self) -> Tensor {
        let [output, input, height, width] = self.shape;
        self.stored.as_strided([output, input, height, width], self.strides(), None)
    }

    fn strides(&self) -> [i64; 4] {
        let [_, input, height, width] = self.shape;
        [input * height * width, 1, width * input, input]
    }

    /// Puts the values of the file into their places. Each `output` keeps its own, so few are copied at a time.
    pub(super) fn turn(&self) -> Result<(), TchError> {
        let _without_gradients = tch::no_grad_guard();
        let [output, input, height, width] = self.shape;
        let (turned, rows) = (self.turned(), (ELEMENTS_AT_ONCE / (input * height * width)).max(1));
        for begin in (0..output).step_by(rows as usize) {
            let count = rows.min(output - begin);
            let stored = self.stored.f_narrow(0, begin, count)?;
            let mut before = stored.f_empty_like()?;
            before.f_copy_(&stored)?;
            turned.f_narrow(0, begin, count)?.f_copy_(&before)?;
        }
        Ok(())
    }
}
