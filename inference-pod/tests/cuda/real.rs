//! What only a GPU can show. `make test-gpu` on a machine that has one; elsewhere these are ignored.

use easel_checkpoints::Files;
use easel_inference::torch::cuda::CudaCopies;
use easel_inference::torch::cuda::allocator::{empty_cache, memory};
use easel_inference::torch::cuda::meter::{AtWork, Meter};
use easel_inference::torch::weights::{Tensors, Weights};
use easel_inference::torch::{self, DeviceChoice, Dtype, Placement};
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

#[test]
#[ignore = "needs a GPU"]
fn weights_are_parked_in_pinned_memory_and_woken_beside_what_the_gpu_computes() {
    torch::init();
    let _without_gradients = tch::no_grad_guard();
    let copies = CudaCopies::of(GPU).unwrap();
    let layers: Vec<Tensor> = (1..9).map(|size| Tensor::randn([size * 997, 1001], (Kind::Half, GPU))).collect();
    let before: Vec<Tensor> = layers.iter().map(|layer| layer.to_device(Device::Cpu)).collect();
    let tensors: Tensors = layers.iter().map(Tensor::shallow_clone).collect();
    let factor = Tensor::randn([4096, 4096], (Kind::Half, GPU));
    for _ in 0..3 {
        let busy = (0..20).fold(factor.shallow_clone(), |product, _| product.matmul(&factor));
        tensors.park(GPU, Some(copies)).unwrap();
        assert_eq!(layers, before);
        assert!(layers.iter().all(|layer| layer.is_pinned(GPU)));
        tensors.wake(GPU, Some(copies)).unwrap();
        assert_eq!(layers.iter().map(|layer| layer.to_device(Device::Cpu)).collect::<Vec<_>>(), before);
        drop(busy);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn weights_are_the_files_on_a_gpu_too() {
    torch::init();
    let folder = tempfile::tempdir().unwrap();
    let written = crate::copies::write_weights(folder.path());
    let files = Files::trusted(folder.path()).unwrap();
    let placement = Placement::choose(DeviceChoice::Cuda(0), Dtype::F32).unwrap();
    let weights = Weights::of_file(&files, "model.safetensors", placement).unwrap();
    let read: Vec<Tensor> =
        written.iter().map(|(key, tensor)| weights.root().tensor(key, &tensor.size()).unwrap()).collect();
    weights.finish(&[]).unwrap();
    for ((key, written), read) in written.iter().zip(&read) {
        assert_eq!(read.device(), GPU);
        assert_eq!(written.to_kind(Kind::Float), read.to_device(Device::Cpu), "{key}");
    }
}
