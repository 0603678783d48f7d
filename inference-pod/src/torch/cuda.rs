//! What tch lacks of CUDA: what a device's memory holds, and what a call took of it. All of it is found when the program
//! runs; where there is no CUDA, every answer is that there is none. Knows bytes and devices; does not know models.
//!
//! libtorch's allocator has virtual calls only, so a C++ shim (`shim/allocator.cpp`) asks it.

pub mod allocator;
pub mod meter;
