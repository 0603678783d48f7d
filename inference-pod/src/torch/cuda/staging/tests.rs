//! Whatever the device has done when: every byte arrives, and nothing is touched too early or freed too soon.

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::torch::cuda::copies::fake::Fake;
use crate::torch::cuda::moves::{MoveError, to_device, to_host};

/// Of a half.
const BYTES: usize = 16;

fn tensors(lengths: &[usize]) -> Vec<Tensor> {
    lengths.iter().map(|length| Tensor::zeros([length.cast_signed() as i64], (Kind::Uint8, Device::Cpu))).collect()
}

/// Other bytes for each tensor.
fn content(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (7 * number + at + 1) as u8).collect()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::try_from(tensor).unwrap()
}

fn send_all(device: &Fake, to: &[Tensor]) -> Result<(), CudaError> {
    let mut staging = Staging::new(device, BYTES)?;
    for (number, tensor) in to.iter().enumerate() {
        staging.send(tensor, |memory| {
            memory.copy_from_slice(&content(number, memory.len()));
            Ok::<_, CudaError>(())
        })??;
    }
    staging.finish()
}

fn there_and_back(device: &Fake, awake: &[Tensor]) -> Result<(Vec<Vec<u8>>, Vec<Tensor>), MoveError> {
    let (memory, places) = to_host(device, awake)?;
    let parked: Vec<Vec<u8>> = awake
        .iter()
        .zip(places)
        .map(|(tensor, place)| memory.as_ref()[place..place + tensor.numel()].to_vec())
        .collect();
    // The way up begins in the same memory: what the fake takes for pinned.
    let held = views(&memory, awake);
    device.compute(5);
    let made = to_device(device, &held, Device::Cpu)?;
    drop(memory);
    Ok((parked, made))
}

#[allow(unsafe_code)]
fn views(memory: &impl AsRef<[u8]>, like: &[Tensor]) -> Vec<Tensor> {
    let mut place = 0;
    let view = |tensor: &Tensor| {
        let start = memory.as_ref()[place..].as_ptr();
        place += tensor.numel().next_multiple_of(64);
        // SAFETY: so many bytes are there, and `memory` goes after the last use.
        unsafe { Tensor::from_blob(start, &tensor.size(), &[1], tensor.kind(), Device::Cpu) }
    };
    like.iter().map(view).collect()
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..=BYTES, 0..12)
}

fn chances() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..80)
}

proptest! {
    #[test]
    fn what_is_sent_arrives_whenever_the_device_copies_it(lengths in lengths(), chances in chances(), work in 0u64..20) {
        let device = Fake::new(chances, None);
        device.compute(work);
        let to = tensors(&lengths);
        send_all(&device, &to).unwrap();
        for (number, tensor) in to.iter().enumerate() {
            prop_assert_eq!(bytes(tensor), content(number, tensor.numel()));
        }
        prop_assert_eq!(device.hazards(), (vec![], 0));
        prop_assert_eq!(device.memory_held(), 0);
    }

    #[test]
    fn a_call_that_fails_once_or_for_ever_frees_nothing_that_is_on_its_way(
        lengths in lengths(), chances in chances(), work in 0u64..20, fails_in in 0u32..60, once in any::<bool>()
    ) {
        let device = Fake::new(chances, Some(fails_in));
        device.compute(work);
        let to = tensors(&lengths);
        let sent = if once { device.failing_once(|| send_all(&device, &to)) } else { send_all(&device, &to) };
        let (hazards, going) = device.hazards();
        prop_assert_eq!(hazards, Vec::<String>::new());
        // Who can't wait keeps the memory.
        prop_assert!(going == 0 || device.memory_held() > 0);
        prop_assert!(!once || device.memory_held() == 0);
        if sent.is_ok() {
            for (number, tensor) in to.iter().enumerate() {
                prop_assert_eq!(bytes(tensor), content(number, tensor.numel()));
            }
        }
        std::mem::forget(to); // a device that has failed may write there
    }

    #[test]
    fn tensors_go_to_the_host_and_come_back_as_they_were(
        lengths in lengths(), chances in chances(), work in 0u64..20, fails_in in prop::option::of(0u32..60)
    ) {
        let device = Fake::new(chances, fails_in);
        device.compute(work);
        let awake = tensors(&lengths);
        for (number, tensor) in awake.iter().enumerate() {
            tensor.shallow_clone().copy_(&Tensor::from_slice(&content(number, tensor.numel())));
        }
        let moved = there_and_back(&device, &awake);
        prop_assert!(fails_in.is_some() || moved.is_ok());
        if let Ok((parked, made)) = moved {
            for (number, (parked, made)) in parked.iter().zip(&made).enumerate() {
                prop_assert_eq!(parked, &content(number, parked.len()));
                prop_assert_eq!(&bytes(made), parked);
            }
            prop_assert_eq!(device.hazards(), (vec![], 0));
            prop_assert_eq!(device.memory_held(), 0);
        }
    }
}

#[test]
fn the_fake_sees_who_does_not_wait_for_what_is_computed() {
    let device = Fake::new(vec![], None);
    device.compute(1);
    let (mut memory, to) = (device.memory(1).unwrap(), tensors(&[1]));
    memory.as_mut()[0] = 5;
    #[allow(unsafe_code)]
    // SAFETY: both are a byte long, and live until the wait is over.
    unsafe {
        device.copy(to[0].data_ptr().cast(), memory.as_ref().as_ptr(), 1, Way::ToDevice).unwrap();
    }
    let copied = device.event().unwrap();
    device.record(Queue::Copying, &copied).unwrap();
    device.compute(2);
    device.wait(&copied).unwrap();
    assert_eq!(device.hazards().0.len(), 1);
}

#[test]
fn what_is_not_one_block_or_is_too_long_is_refused() {
    let device = Fake::new(vec![], None);
    let mut staging = Staging::new(&device, BYTES).unwrap();
    let mut send = |tensor: &Tensor| staging.send(tensor, |_| Ok::<_, CudaError>(())).unwrap_err().to_string();
    let square = Tensor::zeros([4, 4], (Kind::Uint8, Device::Cpu));
    assert!(send(&square.transpose(0, 1)).ends_with("not contiguous"));
    assert!(send(&tensors(&[BYTES + 1])[0]).ends_with("longer than what it goes through"));
}
