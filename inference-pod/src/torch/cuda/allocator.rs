//! What libtorch's allocator says of a GPU's memory. Knows no device but by its index.

use std::ffi::c_int;

/// Bytes of one device's memory. The first tensor on it makes them known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In tensors.
    pub allocated: i64,
    /// The most that was, since the peak was reset last.
    pub allocated_peak: i64,
    /// In tensors, or kept for the next ones.
    pub reserved: i64,
    pub reserved_peak: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocatorError {
    #[error("there is no GPU whose memory libtorch allocates")]
    Absent,
    #[error("libtorch's allocator failed")]
    Failed,
}

#[allow(unsafe_code)]
mod shim {
    use std::ffi::c_int;

    use super::DeviceMemory;

    unsafe extern "C" {
        pub(super) fn easel_device_memory(device: c_int, found: *mut DeviceMemory) -> c_int;
        pub(super) safe fn easel_reset_device_peak(device: c_int) -> c_int;
        pub(super) safe fn easel_empty_device_cache() -> c_int;
    }
}

/// # Errors
/// There is no such device, or libtorch has not used it yet.
#[allow(unsafe_code)]
pub fn memory(device: usize) -> Result<DeviceMemory, AllocatorError> {
    let mut found = DeviceMemory::default();
    // SAFETY: `found` has the layout of `EaselDeviceMemory`, and is written to before the call returns, if at all.
    let answer = unsafe { shim::easel_device_memory(index(device)?, &raw mut found) };
    said(answer).map(|()| found)
}

/// From now on, the peak is what was allocated since.
pub fn reset_peak(device: usize) -> Result<(), AllocatorError> {
    said(shim::easel_reset_device_peak(index(device)?))
}

/// Gives what is kept for the next tensors back, on all devices. Waits for what the devices compute.
pub fn empty_cache() -> Result<(), AllocatorError> {
    said(shim::easel_empty_device_cache())
}

fn index(device: usize) -> Result<c_int, AllocatorError> {
    // libtorch counts devices in eight bits.
    i8::try_from(device).map(c_int::from).map_err(|_| AllocatorError::Absent)
}

fn said(answer: c_int) -> Result<(), AllocatorError> {
    match answer {
        0 => Ok(()),
        1 => Err(AllocatorError::Absent),
        _ => Err(AllocatorError::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first GPU may be there, but no machine has so many.
    const NO_SUCH: usize = 300;

    #[test]
    fn without_a_gpu_every_question_is_answered_that_there_is_none() {
        assert_eq!(memory(NO_SUCH), Err(AllocatorError::Absent));
        assert_eq!(reset_peak(NO_SUCH), Err(AllocatorError::Absent));
        if !tch::Cuda::is_available() {
            assert_eq!(memory(0), Err(AllocatorError::Absent));
            assert_eq!(reset_peak(0), Err(AllocatorError::Absent));
            assert_eq!(empty_cache(), Err(AllocatorError::Absent));
        }
    }
}
