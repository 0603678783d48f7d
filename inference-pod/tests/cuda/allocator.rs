//! The C++ shim, and the meter above it.

use easel_inference::torch::cuda::allocator::{AllocatorError, DeviceMemory, empty_cache, memory, reset_peak};
use easel_inference::torch::cuda::meter::{AtWork, Meter, weights_go};
use libloading::os::unix::Library;
use tch::Device;

use crate::fakes::{self, tell};

/// One test, for libtorch has one registry.
#[test]
fn memory_is_what_the_registered_allocator_says_and_a_step_took_what_it_added_while_no_one_else_was_at_work() {
    assert_eq!(memory(0), Err(AllocatorError::Absent), "before libtorch's CUDA half is loaded");
    let include = env!("EASEL_LIBTORCH_INCLUDE");
    let (fake, _) = fakes::library("c++", "fake_allocator.cpp", &["-std=c++17", "-isystem", include]);
    assert_eq!(memory(0), Err(AllocatorError::Absent), "before its first tensor");
    tell(&fake, "initialize", 0);
    answers_what_it_holds(&fake);
    measures_steps(&fake);
    std::mem::forget(fake); // libc10 keeps its address
}

fn answers_what_it_holds(fake: &Library) {
    assert_eq!(memory(0), Ok(DeviceMemory::default()));
    tell(fake, "allocate", 1000);
    tell(fake, "free", 400);
    let held = DeviceMemory { allocated: 600, allocated_peak: 1000, reserved: 1000, reserved_peak: 1000 };
    assert_eq!(memory(0), Ok(held));
    assert_eq!(empty_cache(), Ok(()));
    assert_eq!(memory(0), Ok(DeviceMemory { reserved: 600, ..held }));
    assert_eq!(reset_peak(0), Ok(()));
    let held = DeviceMemory { allocated: 600, allocated_peak: 600, reserved: 600, reserved_peak: 600 };
    assert_eq!(memory(0), Ok(held));
    assert_eq!(memory(1), Err(AllocatorError::Failed), "an exception stays in the shim");
}

fn measures_steps(fake: &Library) {
    let step = || {
        tell(fake, "allocate", 5000);
        tell(fake, "free", 4900);
    };
    let measured = |meanwhile: &dyn Fn()| {
        let _at_work = AtWork::begin();
        let meter = Meter::begin(Device::Cuda(0));
        step();
        meanwhile();
        meter.and_then(Meter::end)
    };
    assert_eq!(measured(&|| ()), Some(5000));
    assert_eq!(measured(&|| ()), Some(5000), "what an earlier step left is not this one's");
    let elsewhere = || drop(std::thread::spawn(|| drop(AtWork::begin())).join());
    assert_eq!(measured(&elsewhere), None, "somebody began meanwhile");
    assert_eq!(measured(&weights_go), None, "weights went meanwhile");
    let loads = AtWork::begin();
    assert_eq!(measured(&|| ()), None, "somebody was at work already");
    drop(loads);
    assert_eq!(measured(&|| ()), Some(5000));
}
