//! Gives memory that checkpoints have left back to the kernel. Knows the allocator; does not know what left.
//!
//! glibc maps what is large by itself and unmaps it when it is freed, but what is "large" grows to 32 MiB with what is freed,
//! and smaller tensors then come from an arena, which keeps them: of 2.5 GB that had left, 1.4 GB stayed resident.

pub(super) fn free<T>(left: T) {
    drop(left);
    give_back();
}

/// On a thread of its own, for it takes as long as the kernel needs for the pages.
pub(super) fn give_back() {
    if let Err(error) = std::thread::Builder::new().name("give-back".into()).spawn(trim) {
        tracing::warn!(%error, "freed memory stays with the process");
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: takes the allocator's own locks, and touches only what nobody has allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
