// What libtorch's allocator of a GPU knows of its memory, for Rust. Knows no CUDA header and no model.
//
// This is C++ because these are virtual calls, whose results are structs of libtorch: no symbol could be looked up for
// them. It needs no CUDA: libtorch_cuda registers its allocator in libc10 when it is loaded, and before that, or where
// there is none, the answer is ABSENT. No exception leaves a function; all may be called by any thread.

#include <cstdint>

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace {

enum Answer : int { DONE = 0, ABSENT = 1, FAILED = 2 };

template <typename Call>
Answer ask(Call call) {
  try {
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
    // Not ready before the first tensor, or without a driver: it would throw then.
    if (allocator == nullptr || !allocator->initialized()) {
      return ABSENT;
    }
    call(*allocator);
    return DONE;
  } catch (...) {
    return FAILED;
  }
}

} // namespace

extern "C" {

struct EaselDeviceMemory {
  int64_t allocated;
  int64_t allocated_peak;
  int64_t reserved;
  int64_t reserved_peak;
};

int easel_device_memory(int device, EaselDeviceMemory* found) {
  return ask([&](c10::DeviceAllocator& allocator) {
    const auto statistics = allocator.getDeviceStats(static_cast<c10::DeviceIndex>(device));
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto& allocated = statistics.allocated_bytes[all];
    const auto& reserved = statistics.reserved_bytes[all];
    *found = {allocated.current, allocated.peak, reserved.current, reserved.peak};
  });
}

int easel_reset_device_peak(int device) {
  return ask([&](c10::DeviceAllocator& allocator) {
    allocator.resetPeakStats(static_cast<c10::DeviceIndex>(device));
  });
}

int easel_empty_device_cache() {
  return ask([](c10::DeviceAllocator& allocator) { allocator.emptyCache(); });
}

}
