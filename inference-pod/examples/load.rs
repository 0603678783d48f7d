//! Loads a checkpoint folder as a pod does and says how long it took and how much memory, as one line of JSON:
//! `cargo run --release --features torch --example load -- FOLDER [auto|f32|bf16|f16] [DIGEST]`. With the digest of the
//! folder's listing every byte is verified on its way, as a pod does with what it has not fetched itself.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use easel_checkpoints::{Files, Stopped};
use easel_inference::pipeline::{Loader, Pipeline};
use easel_inference::torch::{self, DeviceChoice, Dtype, Placement, TorchLoader};

fn main() -> anyhow::Result<()> {
    torch::init();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("say which folder")?;
    let dtype: Dtype = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let digest = arguments.next();
    let placement = Placement::choose(DeviceChoice::Auto, dtype)?;
    torch::set_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16));

    let before = resident("VmRSS")?;
    let started = Instant::now();
    let files = match &digest {
        Some(digest) => Files::unproved(&folder, digest, Box::new(|_, _| true))?,
        None => Files::trusted(Path::new(&folder))?,
    };
    let pipeline = TorchLoader::new(placement).load(&files)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let proved = files.prove().map_err(|stopped| match stopped {
        Stopped::Refused(refusal) => anyhow::Error::new(refusal),
        Stopped::Cancelled => anyhow::anyhow!("nothing stops it"),
    });
    let verified = if digest.is_some() { proved?.total_bytes } else { 0 };
    let seconds = started.elapsed().as_secs_f64();
    let (peak, weights) = (resident("VmHWM")?, pipeline.memory_bytes());
    // On a GPU the weights are elsewhere, and all of the peak is beyond them.
    let held = if placement.to_string() == "cpu" { weights } else { 0 };
    let beyond = peak.saturating_sub(before).saturating_sub(held);
    println!(
        "{{\"device\": \"{placement}\", \"seconds\": {seconds:.3}, \"load_seconds\": {load_seconds:.3}, \
         \"verified_bytes\": {verified}, \"weight_bytes\": {weights}, \"before_bytes\": {before}, \
         \"peak_bytes\": {peak}, \"beyond_weights_bytes\": {beyond}}}"
    );
    torch_exit()
}

/// Of this process, in bytes.
fn resident(key: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("the kernel does not say")?;
    let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kib * 1024)
}

/// Freeing gigabytes at the end is nobody's time.
fn torch_exit() -> ! {
    easel_inference::backend::exit(0)
}
