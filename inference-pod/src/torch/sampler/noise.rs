//! The random numbers of one picture: a function of its seed, of how many were drawn before, and of their shape, the
//! same on every device. Knows libtorch's generator; does not know what the numbers are for.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

/// libtorch has one CPU generator for the whole process; between seeding and drawing nobody else may draw.
static GENERATOR: Mutex<()> = Mutex::new(());

/// How far one picture has read its stream of random numbers. Two plain numbers, so that it can move to another pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    pub seed: u64,
    /// The first latents are the first draw.
    pub draws: u64,
}

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// The next draw, in f32 on the CPU, and where the stream stands after it. Equals what
    /// `torch.randn(shape, generator=generator)` gives when `torch.Generator().manual_seed(seed)` has been asked
    /// `draws` times for that shape before, as diffusers asks one generator for the latents and for each step.
    ///
    /// The process's generator can't be kept for each picture, so earlier draws are made again and dropped: 0.3 ms
    /// each for a picture of 1024x1024 (4 x 128 x 128 latents, one core), 14 ms before the 50th step.
    pub fn next(self, shape: &[i64]) -> (Tensor, Self) {
        // The lock guards no data, so a panic while it was held left nothing half done.
        let _generator = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(self.seed.cast_signed());
        for _ in 0..self.draws {
            let _ = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        }
        let drawn = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        (drawn, Self { draws: self.draws + 1, ..self })
    }
}
