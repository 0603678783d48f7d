//! Loads a checkpoint folder as a pod does and says how long it took and how much memory, as one line of JSON:
//! `cargo run --release --features torch --example load -- FOLDER [auto|f32|bf16|f16]`

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use easel_checkpoints::digest::Listing;
use easel_inference::pipeline::{Loader, Pipeline};
use easel_inference::torch::{self, DeviceChoice, Dtype, Placement, TorchLoader};

fn main() -> anyhow::Result<()> {
    torch::init();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("say which folder")?;
    let dtype: Dtype = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let placement = Placement::choose(DeviceChoice::Auto, dtype)?;
    torch::set_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16));

    let started = Instant::now();
    let digest = Listing::read(Path::new(&folder))?.digest(|_, _| true)?.context("nothing stops it")?;
    let verify_seconds = started.elapsed().as_secs_f64();

    let before = resident("VmRSS")?;
    let started = Instant::now();
    let pipeline = TorchLoader::new(placement).load(Path::new(&folder))?;
    let load_seconds = started.elapsed().as_secs_f64();
    let (peak, weights) = (resident("VmHWM")?, pipeline.memory_bytes());
    // On a GPU the weights are elsewhere, and all of the peak is beyond them.
    let held = if placement.to_string() == "cpu" { weights } else { 0 };
    let beyond = peak.saturating_sub(before).saturating_sub(held);
    println!(
        "{{\"digest\": \"{digest}\", \"device\": \"{placement}\", \"verify_seconds\": {verify_seconds:.3}, \
         \"load_seconds\": {load_seconds:.3}, \"weight_bytes\": {weights}, \"before_bytes\": {before}, \
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
