//! CUDA's runtime, by the symbols that a process has loaded: streams, events, copies, pinned memory. Knows C calls and
//! their errors; does not know in what order they make sense.
//!
//! Plain C functions, so they need neither C++ nor CUDA's headers. They are looked up in what the process has loaded
//! already, so it is the runtime that libtorch computes with, of whatever version. Their signatures are the same in CUDA
//! 11, 12 and 13.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::os::unix::Library;

/// `cudaStreamNonBlocking`: does not wait for the default stream, on which libtorch computes, nor that for it.
const BESIDE_THE_DEFAULT: c_uint = 1;
/// `cudaEventBlockingSync` and `cudaEventDisableTiming`: who waits sleeps, and there is no time to be read.
const SLEEPING_UNTIMED: c_uint = 1 | 2;

#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("CUDA's runtime is not loaded: there is no {symbol}")]
    Absent { symbol: &'static str },
    #[error("there is no device {index}: CUDA sees {found}")]
    NoDevice { index: usize, found: c_int },
    #[error("{call} failed: {text} (CUDA error {code})")]
    Call { call: &'static str, code: c_int, text: String },
    /// A fault of ours.
    #[error("a tensor can't be copied as one block of memory: {0}")]
    Layout(&'static str),
}

/// `cudaMemcpyKind`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Way {
    ToDevice = 1,
    ToHost = 2,
}

macro_rules! runtime {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of `cuda_runtime_api.h` that are used here, by their names there.
        #[allow(non_snake_case, reason = "names of C")]
        #[derive(Debug)]
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl Functions {
            #[allow(unsafe_code)]
            fn of(library: &Library) -> Result<Self, CudaError> {
                // SAFETY: these are the signatures of `cuda_runtime_api.h`; whoever opened the library vouches that its
                // functions of these names are CUDA's, and keeps it open.
                Ok(Self { $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                    .map_err(|_| CudaError::Absent { symbol: stringify!($name) })?,)* })
            }
        }
    };
}

runtime! {
    cudaGetLastError: fn() -> c_int;
    cudaGetErrorString: fn(c_int) -> *const c_char;
    cudaGetDeviceCount: fn(*mut c_int) -> c_int;
    cudaSetDevice: fn(c_int) -> c_int;
    cudaStreamCreateWithFlags: fn(*mut *mut c_void, c_uint) -> c_int;
    cudaStreamWaitEvent: fn(*mut c_void, *mut c_void, c_uint) -> c_int;
    cudaEventCreateWithFlags: fn(*mut *mut c_void, c_uint) -> c_int;
    cudaEventRecord: fn(*mut c_void, *mut c_void) -> c_int;
    cudaEventSynchronize: fn(*mut c_void) -> c_int;
    cudaEventDestroy: fn(*mut c_void) -> c_int;
    cudaMemcpyAsync: fn(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
    cudaHostAlloc: fn(*mut *mut c_void, usize, c_uint) -> c_int;
    cudaFreeHost: fn(*mut c_void) -> c_int;
}

/// Safe as long as what it is given came from it: pointers stay inside of this module.
#[derive(Debug)]
pub struct Runtime {
    functions: Functions,
    /// Open as long as its functions are.
    _library: Library,
}

impl Runtime {
    /// The one that this process has loaded, if any.
    pub fn of_process() -> Option<&'static Self> {
        static LOADED: OnceLock<Option<Runtime>> = OnceLock::new();
        LOADED.get_or_init(|| Self::of(Library::this()).ok()).as_ref()
    }

    /// # Errors
    /// The library lacks a function.
    pub fn of(library: Library) -> Result<Self, CudaError> {
        Ok(Self { functions: Functions::of(&library)?, _library: library })
    }

    /// # Errors
    /// There is no such device; without a driver, or a GPU, there is none at all.
    #[allow(unsafe_code)]
    pub(super) fn has_device(&self, index: usize) -> Result<(), CudaError> {
        let mut found = 0;
        // SAFETY: `found` outlives the call.
        let counted = self.said("cudaGetDeviceCount", unsafe { (self.functions.cudaGetDeviceCount)(&raw mut found) });
        let found = if counted.is_ok() { found } else { 0 };
        let has = c_int::try_from(index).is_ok_and(|index| index < found);
        if has { Ok(()) } else { Err(CudaError::NoDevice { index, found }) }
    }

    /// For the calls of this thread that follow.
    #[allow(unsafe_code)]
    pub(super) fn set_device(&self, index: usize) -> Result<(), CudaError> {
        // SAFETY: takes no memory, and refuses what is no device.
        let answer = unsafe { (self.functions.cudaSetDevice)(c_int::try_from(index).unwrap_or(c_int::MAX)) };
        self.said("cudaSetDevice", answer)
    }

    /// Of this thread's device; never destroyed.
    #[allow(unsafe_code)]
    pub(super) fn stream(&self) -> Result<Stream, CudaError> {
        let mut stream = null_mut();
        // SAFETY: `stream` outlives the call.
        let answer = unsafe { (self.functions.cudaStreamCreateWithFlags)(&raw mut stream, BESIDE_THE_DEFAULT) };
        self.said("cudaStreamCreateWithFlags", answer).map(|()| Stream(stream))
    }

    #[allow(unsafe_code)]
    pub(super) fn event(&'static self) -> Result<Event, CudaError> {
        let mut event = null_mut();
        // SAFETY: `event` outlives the call.
        let answer = unsafe { (self.functions.cudaEventCreateWithFlags)(&raw mut event, SLEEPING_UNTIMED) };
        self.said("cudaEventCreateWithFlags", answer).map(|()| Event { event, runtime: self })
    }

    #[allow(unsafe_code)]
    pub(super) fn record(&self, event: &Event, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both are of this runtime and live.
        self.said("cudaEventRecord", unsafe { (self.functions.cudaEventRecord)(event.event, stream.0) })
    }

    /// What `stream` is given from now on waits until `event` has happened.
    #[allow(unsafe_code)]
    pub(super) fn stream_waits(&self, stream: &Stream, event: &Event) -> Result<(), CudaError> {
        // SAFETY: both are of this runtime and live.
        self.said("cudaStreamWaitEvent", unsafe { (self.functions.cudaStreamWaitEvent)(stream.0, event.event, 0) })
    }

    /// This thread waits, sleeping.
    #[allow(unsafe_code)]
    pub(super) fn wait(&self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: it is of this runtime and lives.
        self.said("cudaEventSynchronize", unsafe { (self.functions.cudaEventSynchronize)(event.event) })
    }

    /// # Safety
    /// `bytes` at `from` may be read and those at `to` written, from now until the stream is done with it.
    #[allow(unsafe_code)]
    pub(super) unsafe fn copy(
        &self,
        (to, from, bytes): (*mut u8, *const u8, usize),
        way: Way,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's.
        let answer = unsafe { (self.functions.cudaMemcpyAsync)(to.cast(), from.cast(), bytes, way as c_int, stream.0) };
        self.said("cudaMemcpyAsync", answer)
    }

    /// Not by libtorch's allocator, which rounds up to powers of two and gives nothing back.
    #[allow(unsafe_code)]
    pub(super) fn pinned(&'static self, bytes: usize) -> Result<Pinned, CudaError> {
        let mut start = null_mut();
        // SAFETY: `start` outlives the call.
        let answer = unsafe { (self.functions.cudaHostAlloc)(&raw mut start, bytes.max(1), 0) };
        self.said("cudaHostAlloc", answer)?;
        Ok(Pinned { start: start.cast(), bytes, runtime: self })
    }

    fn said(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let Functions { cudaGetErrorString, cudaGetLastError, .. } = self.functions;
        // SAFETY: takes any number, and returns a text that lives as long as the library. And the last error of this
        // thread is read, and so forgotten: libtorch would take it for one of its own, after its next launch.
        #[allow(unsafe_code)]
        let text = unsafe {
            cudaGetLastError();
            CStr::from_ptr(cudaGetErrorString(code))
        };
        Err(CudaError::Call { call, code, text: text.to_string_lossy().into_owned() })
    }
}

#[derive(Debug)]
pub struct Stream(*mut c_void);

impl Stream {
    /// Where libtorch computes: tch never leaves the default stream.
    pub(super) const DEFAULT: Self = Self(null_mut());
}

// SAFETY: CUDA's handles may be used by any thread, by several at once too.
#[allow(unsafe_code)]
unsafe impl Send for Stream {}
#[allow(unsafe_code)]
unsafe impl Sync for Stream {}

/// A point of a stream, once recorded; before, it has happened.
#[derive(Debug)]
pub struct Event {
    event: *mut c_void,
    runtime: &'static Runtime,
}

// SAFETY: as [`Stream`].
#[allow(unsafe_code)]
unsafe impl Send for Event {}

impl Drop for Event {
    /// Streams that still wait for it go on to.
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it is of this runtime, and nobody has it any more.
        unsafe { (self.runtime.functions.cudaEventDestroy)(self.event) };
    }
}

/// Memory of the host that a device reads and writes by itself.
#[derive(Debug)]
pub struct Pinned {
    start: *mut u8,
    bytes: usize,
    runtime: &'static Runtime,
}

// SAFETY: it owns its memory, like a `Box<[u8]>`.
#[allow(unsafe_code)]
unsafe impl Send for Pinned {}

impl AsRef<[u8]> for Pinned {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `bytes` bytes from `start` are ours. What they are is CUDA's choice until they are written; the compiler
        // can't know, for they come from code that it does not see.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }
}

impl AsMut<[u8]> for Pinned {
    #[allow(unsafe_code)]
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed once.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it is of this runtime, and nobody has it any more.
        unsafe { (self.runtime.functions.cudaFreeHost)(self.start.cast()) };
    }
}
