//! What malformed input makes a pod allocate, at most. A binary of its own, for it counts what the whole process asks the
//! allocator for; tests of it run one at a time.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

#[cfg(feature = "torch")]
mod bounds_checkpoints;
mod bounds_forms;
mod bounds_pictures;
mod counting;
mod pod;
#[path = "../promises/support.rs"]
#[allow(dead_code, reason = "the promises need more of it")]
mod support;

#[cfg(feature = "torch")]
#[path = "../parity/checkpoint.rs"]
#[allow(dead_code, reason = "parity needs more of it")]
mod checkpoint;
#[cfg(feature = "torch")]
#[path = "../parity/golden.rs"]
#[allow(dead_code, reason = "parity needs more of it")]
mod golden;
