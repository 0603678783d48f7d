//! What only a GPU can show. `make test-gpu` on a machine that has one; elsewhere these are ignored.

use easel_inference::torch;
use easel_inference::torch::cuda::allocator::{empty_cache, memory};
use easel_inference::torch::cuda::meter::{AtWork, Meter};
use tch::{Device, Kind, Tensor};

const MIB: i64 = 1 << 20;
const GPU: Device = Device::Cuda(0);

fn mebibytes(count: i64) -> Tensor {
    Tensor::zeros([count * MIB], (Kind::Uint8, GPU))
}

#[test]
#[ignore = "needs a GPU"]
fn what_tensors_take_is_measured_at_its_height_and_the_cache_goes_back() {
    torch::init();
    let held = mebibytes(64);
    let before = memory(0).unwrap();
    assert!(before.allocated >= 64 * MIB && before.reserved >= before.allocated, "{before:?}");
    let at_work = AtWork::begin();
    let meter = Meter::begin(GPU).unwrap();
    drop((mebibytes(128), mebibytes(128)));
    let took = meter.end().unwrap().cast_signed();
    assert!((256 * MIB..320 * MIB).contains(&took), "{took}");
    drop((at_work, held));
    empty_cache().unwrap();
    let after = memory(0).unwrap();
    assert!(after.reserved < before.reserved, "{before:?} {after:?}");
}
