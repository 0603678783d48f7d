//! Draws with one checkpoint as a pod does, beside a benchmark that asks: one line of JSON in, one out.
//! `draw FOLDER f32|bf16 THREADS`. In: `{"prompts": [..], "size": "64x64", "steps": 4, "guidance": 5.0}`, all of it one
//! batch with seeds from 0 on, and where `save` names a file the pictures' bytes go there. Out: seconds, and of what.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use easel_inference::pipeline::{Loader as _, PictureRequest, Pipeline as _};
use easel_inference::torch::{self, DeviceChoice, Diffusion, Placement, TorchLoader};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Asked {
    prompts: Vec<String>,
    size: String,
    steps: u32,
    guidance: f32,
    sampler: SamplerKind,
    save: Option<String>,
}

/// In seconds.
#[derive(Serialize)]
struct Took {
    seconds: f64,
    encode: f64,
    steps: f64,
    decode: f64,
}

fn main() -> anyhow::Result<()> {
    torch::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, dtype, threads] = &arguments[..] else { anyhow::bail!("say FOLDER DTYPE THREADS") };
    let placement = Placement::choose(DeviceChoice::Auto, dtype.parse()?)?;
    torch::set_threads(threads.parse()?);
    let pipeline = TorchLoader::new(placement).load(&Files::trusted(Path::new(folder))?)?;
    println!("{{\"weight_bytes\": {}}}", pipeline.memory_bytes());
    for line in std::io::stdin().lock().lines() {
        let asked = serde_json::from_str(&line?)?;
        println!("{}", serde_json::to_string(&draw(&pipeline, &asked)?)?);
    }
    easel_inference::backend::exit(0) // libtorch's destructors are nobody's time
}

fn draw(pipeline: &Diffusion, asked: &Asked) -> anyhow::Result<Took> {
    let requests: Vec<PictureRequest> =
        (0..).zip(&asked.prompts).map(|(seed, prompt)| request(asked, seed, prompt)).collect::<anyhow::Result<_>>()?;
    let began = Instant::now();
    let mut jobs = requests.iter().map(|request| pipeline.encode(request)).collect::<Result<Vec<_>, _>>()?;
    let encoded = Instant::now();
    while jobs.iter().any(|job| !job.is_finished()) {
        pipeline.denoise_step(&mut jobs.iter_mut().collect::<Vec<_>>())?;
    }
    let denoised = Instant::now();
    let pictures = jobs.iter().map(|job| pipeline.decode(job)).collect::<Result<Vec<_>, _>>()?;
    let ended = Instant::now();
    if let Some(path) = &asked.save {
        let mut file = std::fs::File::create(path).with_context(|| format!("failed to write {path}"))?;
        pictures.iter().try_for_each(|picture| file.write_all(&picture.rgb))?;
    }
    Ok(Took {
        seconds: (ended - began).as_secs_f64(),
        encode: (encoded - began).as_secs_f64(),
        steps: (denoised - encoded).as_secs_f64(),
        decode: (ended - denoised).as_secs_f64(),
    })
}

fn request(asked: &Asked, seed: u64, prompt: &str) -> anyhow::Result<PictureRequest> {
    Ok(PictureRequest {
        prompt: prompt.to_owned(),
        negative_prompt: String::new(),
        seed,
        steps: asked.steps,
        guidance_scale: asked.guidance,
        size: asked.size.parse()?,
        sampler: asked.sampler,
        edit: None,
        adapters: Vec::new(),
    })
}
