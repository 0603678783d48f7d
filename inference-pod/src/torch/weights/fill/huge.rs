//! Asks the kernel for large pages under large tensors. Knows memory; a hint only, what it returns changes nothing.

use tch::Tensor;

/// Pages of 2 MiB are worth it from here on: the kernel clears and maps one of them faster than 512 small ones.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// For the whole huge pages inside of a tensor on the CPU.
#[allow(unsafe_code)]
pub(super) fn advise(tensor: &Tensor) {
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length < 2 * HUGE_PAGE_BYTES {
        return;
    }
    let start = tensor.data_ptr();
    let begin = (start as usize).next_multiple_of(HUGE_PAGE_BYTES);
    let end = (start as usize + length) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // SAFETY: `begin..end` lies within the tensor's memory, and the advice changes how it is mapped, not what is in it.
    unsafe {
        libc::madvise(start.byte_add(begin - start as usize).cast(), end - begin, libc::MADV_HUGEPAGE);
    }
}
