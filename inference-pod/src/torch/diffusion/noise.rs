//! The first noise of a picture: a function of its seed and shape, the same on every device.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

/// libtorch has one CPU generator for the whole process; between seeding and drawing nobody else may draw.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Equals `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`: on the CPU, in f32.
pub(super) fn draw(seed: u64, shape: &[i64]) -> Tensor {
    // The lock guards no data, so a panic while it was held left nothing half done.
    let _generator = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed.cast_signed());
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}
