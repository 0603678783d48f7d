//! Where tensors live and how many bits a number has. Owns the one call that may load CUDA; knows no model.

use std::fmt;
use std::str::FromStr;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::{Cuda, Device, Kind};

/// Loads libtorch's CUDA half where there is one. Must be the very first act of `main`.
///
/// The binary links the CPU half alone, so that it starts on machines without the CUDA stack. libtorch finds its CUDA
/// hooks by a registry that the library's constructors fill, and asks that registry once: at the first tensor call.
#[allow(unsafe_code)]
pub fn init() {
    // SAFETY: the constructors that run are libtorch's own, of the same build as the half we link; no other thread
    // runs yet, and no tensor call was made. The handle is forgotten, so the code is never unmapped.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    if let Ok(library) = library {
        std::mem::forget(library);
    }
}

/// Bounds the threads of one CPU operator, for threads of ours that have not computed yet.
///
/// With more than one, run the process with `OMP_WAIT_POLICY=PASSIVE` (libgomp reads it before `main`): by default its
/// threads spin while they wait, and on cores that others use too a step of 17 ms was measured to take 570 ms.
pub fn set_threads(threads: u16) {
    tch::set_num_threads(i32::from(threads.max(1)));
}

/// What a flag asks for: `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

/// What a flag asks for: `auto`, `f32`, `bf16` or `f16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// f16 on a GPU, f32 on a CPU.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

/// A device and a dtype that go together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    pub(super) device: Device,
    pub(super) kind: Kind,
    /// Weights begin in the host's memory; where they compute is `device` still.
    pub(super) parked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("'{0}' is not a device; write auto, cpu, cuda or cuda:N")]
    UnknownDevice(String),
    #[error("'{0}' is not a dtype; write auto, f32, bf16 or f16")]
    UnknownDtype(String),
    #[error("there is no device cuda:{index}: libtorch sees {found} GPUs")]
    NoSuchGpu { index: usize, found: i64 },
    /// Measured: 1 GFLOP/s, where f32 has over 100.
    #[error("f16 is a hundred times slower than f32 on a CPU; use f32 or bf16")]
    HalfOnCpu,
}

impl Placement {
    /// The CPU in f32: what goldens are compared on.
    pub const REFERENCE: Self = Self { device: Device::Cpu, kind: Kind::Float, parked: false };

    pub fn choose(device: DeviceChoice, dtype: Dtype) -> Result<Self, DeviceError> {
        let device = match device {
            DeviceChoice::Auto => Device::cuda_if_available(),
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Cuda(index) => {
                let found = if Cuda::is_available() { Cuda::device_count() } else { 0 };
                if i64::try_from(index).is_ok_and(|index| index < found) {
                    Device::Cuda(index)
                } else {
                    return Err(DeviceError::NoSuchGpu { index, found });
                }
            }
        };
        let kind = match (dtype, device.is_cuda()) {
            (Dtype::Auto | Dtype::F16, true) => Kind::Half,
            (Dtype::Auto, false) | (Dtype::F32, _) => Kind::Float,
            (Dtype::Bf16, _) => Kind::BFloat16,
            (Dtype::F16, false) => return Err(DeviceError::HalfOnCpu),
        };
        Ok(Self { device, kind, parked: false })
    }

    /// For large parts whose values leave the range of f16, and that were trained in bf16: f32 would take twice the memory.
    #[must_use]
    pub fn with_bf16_for_f16(self) -> Self {
        match self.kind {
            Kind::Half => Self { kind: Kind::BFloat16, ..self },
            _ => self,
        }
    }

    #[must_use]
    pub fn parked(self) -> Self {
        Self { parked: true, ..self }
    }

    /// Where weights are put at first.
    pub(super) fn home(self) -> Device {
        if self.parked { Device::Cpu } else { self.device }
    }

    /// For parts whose values leave the range of f16.
    #[must_use]
    pub fn without_f16(self) -> Self {
        match self.kind {
            Kind::Half => Self { kind: Kind::Float, ..self },
            _ => self,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Cpu | Device::Mps | Device::Vulkan => f.write_str("cpu"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::UnknownDevice(text.to_owned())),
        }
    }
}

impl FromStr for Dtype {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(DeviceError::UnknownDtype(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_they_are_documented() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:x".parse::<DeviceChoice>(), Err(DeviceError::UnknownDevice("cuda:x".into())));
        assert_eq!("bf16".parse(), Ok(Dtype::Bf16));
        assert_eq!("int8".parse::<Dtype>(), Err(DeviceError::UnknownDtype("int8".into())));
    }

    #[test]
    fn parts_that_overflow_leave_f16_and_nothing_else() {
        let on = |kind| Placement { device: Device::Cuda(0), kind, parked: false };
        assert_eq!(on(Kind::Half).without_f16(), on(Kind::Float));
        assert_eq!(on(Kind::BFloat16).without_f16(), on(Kind::BFloat16));
        assert_eq!(Placement::REFERENCE.without_f16(), Placement::REFERENCE);
        assert_eq!(on(Kind::Half).with_bf16_for_f16(), on(Kind::BFloat16));
        assert_eq!(Placement::REFERENCE.with_bf16_for_f16(), Placement::REFERENCE);
    }

    #[test]
    fn a_cpu_computes_in_f32_unless_told_and_never_in_f16() {
        assert_eq!(Placement::choose(DeviceChoice::Cpu, Dtype::Auto), Ok(Placement::REFERENCE));
        assert_eq!(Placement::choose(DeviceChoice::Cpu, Dtype::F16), Err(DeviceError::HalfOnCpu));
    }
}
