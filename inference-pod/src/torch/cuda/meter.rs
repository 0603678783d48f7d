//! How much of a GPU's memory a call took beside what was there when it began. Knows which threads compute; does not know
//! what they compute.
//!
//! The device has one peak for all threads. So a call is measured only if no other thread was at work with tensors
//! meanwhile: a checkpoint that loads beside a step would count as the step's, and one that leaves would hide it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tch::Device;

use super::allocator;

/// Threads that work with tensors now.
static INSIDE: AtomicU64 = AtomicU64::new(0);
/// Times that memory may have come or gone by another thread than one's own: whenever a thread began.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// While it lives, its thread works with tensors.
#[derive(Debug)]
pub struct AtWork(());

impl AtWork {
    pub fn begin() -> Self {
        // In this order: whoever sees the old number of changes, and nobody inside, is told by the number later.
        INSIDE.fetch_add(1, SeqCst);
        CHANGES.fetch_add(1, SeqCst);
        Self(())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, SeqCst);
    }
}

/// Weights are about to go, by a thread that does not compute.
pub fn weights_go() {
    CHANGES.fetch_add(1, SeqCst);
}

/// Of one call.
#[derive(Debug)]
pub struct Meter {
    device: usize,
    changes: u64,
    /// Bytes in tensors before the call.
    before: i64,
}

impl Meter {
    /// By the thread that calls, which is [`AtWork`]. Nothing where the device can't be measured, or not now.
    pub fn begin(device: Device) -> Option<Self> {
        let Device::Cuda(device) = device else { return None };
        let changes = CHANGES.load(SeqCst);
        if INSIDE.load(SeqCst) > 1 {
            return None;
        }
        allocator::reset_peak(device).ok()?;
        let before = allocator::memory(device).ok()?.allocated;
        Some(Self { device, changes, before })
    }

    /// Bytes beside what was there before, at the height. Exact as soon as the calls are made: memory is booked by the
    /// processor, whatever the device is still computing.
    pub fn end(self) -> Option<u64> {
        let found = allocator::memory(self.device).ok()?;
        let alone = CHANGES.load(SeqCst) == self.changes;
        alone.then(|| u64::try_from(found.allocated_peak - self.before).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_of_its_own_is_not_measured() {
        let _at_work = AtWork::begin();
        assert!(Meter::begin(Device::Cpu).is_none());
        assert!(Meter::begin(Device::Cuda(300)).is_none());
    }
}
