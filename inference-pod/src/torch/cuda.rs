//! What tch lacks of CUDA: what a device's memory holds, what a call took of it, pinned memory, and copies beside the
//! stream that computes. All of it is found when the program runs; where there is no CUDA, every answer is that there is
//! none. Knows bytes, tensors and devices; does not know models.
//!
//! Two ways lead there, each the least that is right. libtorch's allocator has virtual calls only, so a C++ shim
//! (`shim/allocator.cpp`) asks it. Streams, events and copies are plain C functions of CUDA's runtime, and are looked up
//! in what the process has loaded ([`runtime`]).

pub mod allocator;
pub mod copies;
pub mod meter;
pub mod moves;
pub mod runtime;
pub mod staging;

pub use copies::CudaCopies;
