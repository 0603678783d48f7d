//! CUDA without a GPU: the shim and the lookup of symbols are the real ones, what they find are fakes, built here by a
//! compiler for C and C++. What only a GPU can show is in `real.rs`, ignored elsewhere: `make test-gpu`.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

mod allocator;
mod copies;
mod fakes;
mod real;
