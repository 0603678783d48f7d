//! Headers of checkpoints that promise more than there is.

use crate::checkpoint::{Checkpoint, UNET};
use crate::counting::{Turn, peak, turn};

const MIB: usize = 1 << 20;

/// Of what Rust allocates; tensors are made after the header was found right.
async fn assert_refused(turn: &Turn, length: u64, header: &str, words: &str, mib: usize) {
    let checkpoint = Checkpoint::copy_of("sd1");
    let bytes = [&length.to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    std::fs::write(checkpoint.path(UNET), bytes).unwrap();
    let (refusal, peak) = peak(turn, async { checkpoint.refusal() }).await;
    println!("{:.1} MiB: {refusal}", peak as f64 / MIB as f64);
    assert!(refusal.contains(words), "{refusal}");
    assert!(peak <= mib * MIB, "{words}: {peak} bytes");
}

#[tokio::test]
async fn a_header_of_many_exabytes_costs_next_to_nothing() {
    let turn = turn().await;
    for length in [1 << 60, u64::MAX] {
        assert_refused(&turn, length, "{}", "its header would have", 4).await;
    }
}

#[tokio::test]
async fn a_tensor_of_many_exabytes_costs_next_to_nothing() {
    let turn = turn().await;
    let huge = r#"{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
    assert_refused(&turn, huge.len() as u64, huge, "truncated or padded", 4).await;
}
