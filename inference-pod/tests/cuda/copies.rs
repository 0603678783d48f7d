//! Weights to a device beside what it computes, parked and woken, by the fake runtime: bytes are compared, and the fake
//! counts what was done in a wrong order.

use std::path::Path;

use easel_checkpoints::Files;
use easel_inference::torch::Placement;
use easel_inference::torch::cuda::CudaCopies;
use easel_inference::torch::cuda::copies::Copies;
use easel_inference::torch::cuda::runtime::{CudaError, Runtime};
use easel_inference::torch::weights::{Tensors, Weights, WeightsError};
use libloading::os::unix::Library;
use tch::{Device, Kind, Tensor};

use crate::fakes::{self, ask, tell};

/// A library of its own for each test, for it counts. Never closed.
fn fake() -> (&'static Library, CudaCopies) {
    let build = || fakes::library("cc", "fake_cudart.c", &["-pthread"]);
    let (counted, runtime) = build_twice(build);
    (counted, CudaCopies::new(runtime, 0).unwrap())
}

/// The handle that is asked, and a second one of the same library that the runtime owns.
fn build_twice(build: impl Fn() -> (Library, Library)) -> (&'static Library, &'static Runtime) {
    let (counted, owned) = build();
    (Box::leak(Box::new(counted)), Box::leak(Box::new(Runtime::of(owned).unwrap())))
}

fn numbers(shape: &[i64], kind: Kind) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)).remainder(999) / 8).view(shape).to_kind(kind)
}

/// Longer than both halves, shorter than a line, and of another dtype than the device's.
pub(crate) fn write_weights(folder: &Path) -> Vec<(&'static str, Tensor)> {
    let long = numbers(&[3, 1024, 1024], Kind::Float);
    let tensors = vec![
        ("bias", numbers(&[5], Kind::Float)),
        ("half", numbers(&[700, 1000], Kind::Half)),
        ("long", Tensor::cat(&[&long, &(&long + 1), &(&long + 2)], 0)),
    ];
    Tensor::write_safetensors(&tensors, folder.join("model.safetensors")).unwrap();
    tensors
}

#[test]
fn weights_arrive_with_every_byte_whatever_their_dtype_and_length() {
    let (fake, copies) = fake();
    let folder = tempfile::tempdir().unwrap();
    let written = write_weights(folder.path());
    let files = Files::trusted(folder.path()).unwrap();
    let weights = Weights::of_file(&files, "model.safetensors", Placement::REFERENCE).unwrap();
    let weights = weights.by(Box::leak(Box::new(copies)));
    let read: Vec<Tensor> =
        written.iter().map(|(key, tensor)| weights.root().tensor(key, &tensor.size()).unwrap()).collect();
    weights.finish(&[]).unwrap();
    for ((key, written), read) in written.iter().zip(&read) {
        assert_eq!(read.kind(), Kind::Float);
        assert_eq!(written.to_kind(Kind::Float), *read, "{key}");
    }
    assert_eq!(ask(fake, "copied_bytes"), weights.bytes() as usize);
    assert!(ask(fake, "fences") >= 1 && ask(fake, "copies") > 4);
    assert_eq!((ask(fake, "wrong"), ask(fake, "streams"), ask(fake, "pinned_now")), (0, 1, 0));
}

#[test]
fn a_copy_that_fails_fails_the_load_and_leaves_nothing_behind() {
    let (fake, copies) = fake();
    let folder = tempfile::tempdir().unwrap();
    let written = write_weights(folder.path());
    let files = Files::trusted(folder.path()).unwrap();
    let weights = Weights::of_file(&files, "model.safetensors", Placement::REFERENCE).unwrap();
    let weights = weights.by(Box::leak(Box::new(copies)));
    let taken: Vec<Tensor> =
        written.iter().map(|(key, tensor)| weights.root().tensor(key, &tensor.size()).unwrap()).collect();
    tell(fake, "fail_copies_after", 3);
    let Err(WeightsError::Copy(error)) = weights.finish(&[]) else { panic!("it was told to fail") };
    assert_eq!(error.to_string(), "cudaMemcpyAsync failed: invalid argument (CUDA error 1)");
    assert_eq!((ask(fake, "wrong"), ask(fake, "pinned_now")), (0, 0));
    assert_eq!(ask(fake, "last_error"), 0, "libtorch would find it");
    drop(taken);
}

#[test]
fn layers_see_their_weights_on_the_host_and_back_on_the_device() {
    let (fake, copies) = fake();
    let _without_gradients = tch::no_grad_guard();
    let layers = [numbers(&[3, 7], Kind::Float), numbers(&[5], Kind::Half), numbers(&[64, 64], Kind::BFloat16)];
    let before: Vec<Tensor> = layers.iter().map(Tensor::copy).collect();
    let tensors: Tensors = layers.iter().map(Tensor::shallow_clone).collect();
    for _ in 0..3 {
        tensors.park(Device::Cpu, Some(&copies)).unwrap();
        assert_eq!((ask(fake, "pinned_now"), &layers[..]), (1, &before[..]), "in one block");
        tensors.wake(Device::Cpu, Some(&copies)).unwrap();
        assert_eq!((ask(fake, "pinned_now"), &layers[..]), (0, &before[..]));
    }
    assert_eq!(ask(fake, "copied_bytes"), 6 * tensors.bytes() as usize, "three times there and three times back");
    assert_eq!((ask(fake, "wrong"), ask(fake, "copies")), (0, 18));
}

/// As what was loaded to the host's memory at once.
#[test]
fn weights_that_are_not_pinned_go_through_two_halves() {
    let (fake, copies) = fake();
    let _without_gradients = tch::no_grad_guard();
    let layers = [numbers(&[5_000_000], Kind::Float), numbers(&[3], Kind::Half)];
    let before: Vec<Tensor> = layers.iter().map(Tensor::copy).collect();
    let tensors: Tensors = layers.iter().map(Tensor::shallow_clone).collect();
    tensors.wake(Device::Cpu, Some(&copies)).unwrap();
    assert_eq!(&layers[..], &before[..]);
    assert_eq!((ask(fake, "wrong"), ask(fake, "copies"), ask(fake, "pinned_now")), (0, 4, 0));
    assert_eq!(ask(fake, "pinned_bytes"), 16 << 20);
}

#[test]
fn a_runtime_without_a_device_or_without_its_functions_says_so() {
    let build = || fakes::library("cc", "fake_cudart.c", &["-pthread"]);
    let (fake, runtime) = build_twice(build);
    tell(fake, "devices", 0);
    let error = CudaCopies::new(runtime, 0).unwrap_err();
    assert_eq!(error.to_string(), "there is no device 0: CUDA sees 0");
    assert_eq!(ask(fake, "last_error"), 0);
    let (_, empty) = fakes::library("cc", "empty.c", &[]);
    let error = Runtime::of(empty).unwrap_err();
    assert!(matches!(error, CudaError::Absent { symbol: "cudaGetLastError" }), "{error}");
}

#[test]
fn too_much_pinned_memory_is_an_error_with_cudas_words() {
    let (fake, copies) = fake();
    let error = copies.memory(2 << 40).unwrap_err();
    assert_eq!(error.to_string(), "cudaHostAlloc failed: out of memory (CUDA error 2)");
    assert_eq!(ask(fake, "last_error"), 0);
}
