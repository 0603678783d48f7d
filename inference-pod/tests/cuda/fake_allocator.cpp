// Stands in for libtorch_cuda's allocator: registered in libc10 in the same way, when it is loaded. A fake: it holds
// numbers, no memory.

#include <stdexcept>

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace {

struct Fake final : c10::DeviceAllocator {
  c10::CachingDeviceAllocator::DeviceStats statistics;
  bool is_initialized = false;

  c10::CachingAllocator::Stat& allocated() { return statistics.allocated_bytes[0]; }
  c10::CachingAllocator::Stat& reserved() { return statistics.reserved_bytes[0]; }

  bool initialized() override { return is_initialized; }
  void emptyCache(c10::MempoolId_t) override {
    reserved().decrease(static_cast<size_t>(reserved().current - allocated().current));
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    if (device != 0) {
      throw std::runtime_error("Invalid device argument");
    }
    return statistics;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {
    allocated().reset_peak();
    reserved().reset_peak();
  }
  c10::DataPtr allocate(size_t) override { throw std::runtime_error("this fake has no memory"); }
  void copy_data(void*, const void*, std::size_t) const override {}
};

Fake fake;
const c10::AllocatorRegisterer<c10::DeviceType::CUDA> registered(&fake);

} // namespace

extern "C" {

void fake_initialize() { fake.is_initialized = true; }

void fake_allocate(size_t bytes) {
  fake.allocated().increase(bytes);
  if (fake.allocated().current > fake.reserved().current) {
    fake.reserved().increase(static_cast<size_t>(fake.allocated().current - fake.reserved().current));
  }
}

void fake_free(size_t bytes) { fake.allocated().decrease(bytes); }

}
