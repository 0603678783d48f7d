//! The copies of one device: what they are to whoever puts them in order, and CUDA's. Knows queues, events and bytes;
//! does not know tensors.

#[cfg(test)]
pub(super) mod fake;

use std::fmt::Debug;
use std::sync::OnceLock;

use tch::Device;

use super::runtime::{CudaError, Event, Pinned, Runtime, Stream, Way};

/// What a device does in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// What libtorch gave it.
    Computing,
    /// Copies, beside that.
    Copying,
}

/// A queue of copies beside the queue of what computes. All calls but [`Copies::wait`] only put things into queues.
pub trait Copies: Sync {
    type Event: Debug + Send;
    /// Of the host, and read and written by the device.
    type Memory: AsRef<[u8]> + AsMut<[u8]> + Debug + Send;

    fn memory(&self, bytes: usize) -> Result<Self::Memory, CudaError>;

    fn event(&self) -> Result<Self::Event, CudaError>;

    /// The event happens when `queue` has done what it was given so far.
    fn record(&self, queue: Queue, event: &Self::Event) -> Result<(), CudaError>;

    /// Copies that follow wait for it.
    fn copies_wait(&self, event: &Self::Event) -> Result<(), CudaError>;

    /// The caller waits until it has happened.
    fn wait(&self, event: &Self::Event) -> Result<(), CudaError>;

    /// # Safety
    /// `bytes` at `from` may be read and those at `to` written, from now until an event has happened that is recorded on
    /// [`Queue::Copying`] after this.
    #[allow(unsafe_code)]
    unsafe fn copy(&self, to: *mut u8, from: *const u8, bytes: usize, way: Way) -> Result<(), CudaError>;
}

/// A stream of copies on one GPU.
#[derive(Debug)]
pub struct CudaCopies {
    runtime: &'static Runtime,
    device: usize,
    stream: Stream,
}

impl CudaCopies {
    /// # Errors
    /// There is no such GPU.
    pub fn new(runtime: &'static Runtime, device: usize) -> Result<Self, CudaError> {
        runtime.has_device(device)?;
        runtime.set_device(device)?;
        Ok(Self { runtime, device, stream: runtime.stream()? })
    }

    /// Those of a device, where it is a GPU and CUDA's runtime is there. A process computes on one device.
    pub fn of(device: Device) -> Option<&'static Self> {
        static FIRST: OnceLock<Option<CudaCopies>> = OnceLock::new();
        let Device::Cuda(index) = device else { return None };
        let first = FIRST.get_or_init(|| {
            let made = Self::new(Runtime::of_process()?, index);
            made.inspect_err(|error| tracing::warn!(%error, "no copies beside computing: loading waits for steps")).ok()
        });
        first.as_ref().filter(|copies| copies.device == index)
    }

    /// Events and streams belong to the device that their thread has chosen.
    fn here(&self) -> Result<&'static Runtime, CudaError> {
        self.runtime.set_device(self.device).map(|()| self.runtime)
    }
}

impl Copies for CudaCopies {
    type Event = Event;
    type Memory = Pinned;

    fn memory(&self, bytes: usize) -> Result<Pinned, CudaError> {
        self.here()?.pinned(bytes)
    }

    fn event(&self) -> Result<Event, CudaError> {
        self.here()?.event()
    }

    fn record(&self, queue: Queue, event: &Event) -> Result<(), CudaError> {
        let stream = match queue {
            Queue::Computing => &Stream::DEFAULT,
            Queue::Copying => &self.stream,
        };
        self.here()?.record(event, stream)
    }

    fn copies_wait(&self, event: &Event) -> Result<(), CudaError> {
        self.here()?.stream_waits(&self.stream, event)
    }

    fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.here()?.wait(event)
    }

    #[allow(unsafe_code)]
    unsafe fn copy(&self, to: *mut u8, from: *const u8, bytes: usize, way: Way) -> Result<(), CudaError> {
        // SAFETY: the caller's.
        unsafe { self.here()?.copy((to, from, bytes), way, &self.stream) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_and_a_gpu_that_is_not_there_have_no_copies_beside_computing() {
        assert!(CudaCopies::of(Device::Cpu).is_none());
        assert!(CudaCopies::of(Device::Cuda(300)).is_none());
    }

    /// libtorch's CPU half brings CUDA's real runtime along, so this asks it.
    #[test]
    fn the_runtime_that_libtorch_brought_says_that_there_is_no_such_device() {
        let Some(runtime) = Runtime::of_process() else { return };
        let error = CudaCopies::new(runtime, 300).unwrap_err();
        assert!(matches!(error, CudaError::NoDevice { index: 300, .. }), "{error}");
        if !tch::Cuda::is_available() {
            let error = CudaCopies::new(runtime, 0).unwrap_err();
            assert_eq!(error.to_string(), "there is no device 0: CUDA sees 0");
        }
    }
}
