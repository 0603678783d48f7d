//! A pipeline without a model, for tests, simulations and clusters without GPUs: it takes the time that a latency
//! model says and draws a picture from a hash, or tints the one it shall edit. Knows the Pipeline trait only; says on
//! every picture's seed the same.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use easel_api::ImageSize;
use easel_api::images::Task;
use easel_checkpoints::Files;
use sha2::{Digest, Sha256};

use crate::pipeline::{
    BatchKey, DecodeMemory, Edit, LoadError, Loader, Picture, PictureRequest, Pipeline, PipelineError, Way, WornAdapter,
};
use crate::vocabulary::Vocabulary;

/// Pixels to which `--fake-step-ms` refers.
const REFERENCE_PIXELS: f64 = 512.0 * 512.0;
/// The part of a step that does not depend on the batch: what small batches share, as measured on real devices.
const SHARED: f64 = 0.25;

/// How long the fake takes, milliseconds for one picture of 512x512.
#[derive(Args, Clone, Debug)]
pub struct FakeFlags {
    /// Milliseconds of one denoise step of one picture of 512x512 (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_STEP_MS", default_value_t = 20.0)]
    pub fake_step_ms: f64,
    /// Milliseconds to read a prompt (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_ENCODE_MS", default_value_t = 5.0)]
    pub fake_encode_ms: f64,
    /// Milliseconds to decode one picture of 512x512 (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_DECODE_MS", default_value_t = 10.0)]
    pub fake_decode_ms: f64,
    /// Milliseconds to load a checkpoint (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_LOAD_MS", default_value_t = 0.0)]
    pub fake_load_ms: f64,
    /// Milliseconds between the host's memory and the device's, either way (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_UPLOAD_MS", default_value_t = 0.0)]
    pub fake_upload_ms: f64,
    /// Bytes that a step is said to take for each latent position, picture and row; 0: nothing is said (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_POSITION_BYTES", default_value_t = 0)]
    pub fake_position_bytes: u64,
    /// Bytes that decoding a picture is said to take for each latent position (fake pipeline)
    #[arg(long, env = "EASEL_FAKE_DECODE_BYTES", default_value_t = 0)]
    pub fake_decode_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct FakeLoader {
    flags: FakeFlags,
}

impl FakeLoader {
    pub fn new(flags: FakeFlags) -> Self {
        Self { flags }
    }
}

impl Loader for FakeLoader {
    type Pipeline = FakePipeline;

    fn load(&self, files: &Files) -> Result<FakePipeline, LoadError> {
        FakePipeline::wake(self.load_parked(files)?)
            .map_err(|error| LoadError::Failed { part: "the checkpoint".into(), source: error.into() })
    }

    fn load_parked(&self, files: &Files) -> Result<ParkedFake, LoadError> {
        let failed = |source| LoadError::Failed { part: "model_index.json".into(), source };
        let index = files.read("model_index.json").map_err(|error| failed(error.into()))?;
        let index: serde_json::Value = serde_json::from_slice(&index).map_err(|error| failed(error.into()))?;
        sleep_ms(self.flags.fake_load_ms);
        // As if every safetensors file were copied to the device as it is.
        let memory_bytes = files.verified().weight_bytes;
        let tasks = tasks(index["_class_name"].as_str().unwrap_or_default());
        let vocabulary = Vocabulary::read(files)?;
        let (flags, adapters, peak) = (self.flags.clone(), BTreeMap::new(), AtomicU64::new(0));
        Ok(ParkedFake(FakePipeline { flags, memory_bytes, adapters, peak, tasks, vocabulary }))
    }

    fn has_host_tier(&self) -> bool {
        true
    }

    /// As if its safetensors files were copied to the device as they are.
    fn load_adapter(&self, files: &Files, (): &()) -> Result<FakeAdapter, LoadError> {
        let names: Vec<_> = files.names("").filter(|name| name.ends_with(".safetensors")).collect();
        let [name] = names[..] else {
            return Err(LoadError::Unsupported("an adapter is a folder with one safetensors file".into()));
        };
        let failed = |source: std::io::Error| LoadError::Failed { part: name.to_owned(), source: source.into() };
        sleep_ms(self.flags.fake_load_ms);
        let bytes = files.read(name).map_err(failed)?;
        Ok(FakeAdapter { hash: Sha256::digest(&bytes).into(), bytes: bytes.len() as u64 })
    }

    fn device(&self) -> String {
        "fake".into()
    }
}

#[derive(Debug)]
pub struct FakePipeline {
    flags: FakeFlags,
    memory_bytes: u64,
    adapters: BTreeMap<String, FakeAdapter>,
    peak: AtomicU64,
    tasks: &'static [Task],
    vocabulary: Option<Vocabulary>,
}

/// Of diffusers' classes.
fn tasks(class: &str) -> &'static [Task] {
    match class {
        "StableDiffusionInstructPix2PixPipeline" => &[Task::Instruct],
        "StableDiffusionControlNetPipeline" => &[Task::Control],
        "StableDiffusionInpaintPipeline" => &[Task::Inpaint],
        _ => &[Task::Generate, Task::ImageToImage, Task::Inpaint],
    }
}

/// Off the device, which is nowhere.
#[derive(Debug)]
pub struct ParkedFake(FakePipeline);

/// Changes every picture by its hash and its weight.
#[derive(Debug)]
pub struct FakeAdapter {
    hash: [u8; 32],
    bytes: u64,
}

/// No latents: what the picture will be is known from the start.
#[derive(Debug)]
pub struct FakeJob {
    size: ImageSize,
    /// Latent positions, once for each row.
    positions: u64,
    hash: [u8; 32],
    edit: Option<Edit>,
    /// Model calls so far, of `calls`.
    taken: u32,
    calls: u32,
}

impl Pipeline for FakePipeline {
    type Job = FakeJob;
    type Adapter = FakeAdapter;
    type Layers = ();
    type Parked = ParkedFake;

    fn park(self) -> Result<ParkedFake, PipelineError> {
        sleep_ms(self.flags.fake_upload_ms);
        Ok(ParkedFake(Self { adapters: BTreeMap::new(), ..self }))
    }

    fn wake(ParkedFake(pipeline): ParkedFake) -> Result<Self, PipelineError> {
        sleep_ms(pipeline.flags.fake_upload_ms);
        Ok(pipeline)
    }

    fn parked_bytes(ParkedFake(pipeline): &ParkedFake) -> u64 {
        pipeline.memory_bytes
    }

    fn layers(&self) {}

    fn hold_adapter(&mut self, digest: &str, adapter: FakeAdapter) {
        self.adapters.insert(digest.to_owned(), adapter);
    }

    fn drop_adapter(&mut self, digest: &str) {
        self.adapters.remove(digest);
    }

    fn adapter_bytes(adapter: &FakeAdapter) -> u64 {
        adapter.bytes
    }

    fn batch_key(&self, request: &PictureRequest) -> BatchKey {
        BatchKey {
            input_channels: match self.tasks[0] {
                Task::Generate | Task::ImageToImage | Task::Control => 4,
                Task::Instruct => 8,
                Task::Inpaint => 9,
            },
            height: request.size.height() / 8,
            width: request.size.width() / 8,
            text_length: 77,
            rows: match (request.guidance_scale > 1.0, request.task()) {
                (false, _) => 1,
                (true, Task::Generate | Task::ImageToImage | Task::Inpaint | Task::Control) => 2,
                (true, Task::Instruct) => 3,
            },
        }
    }

    fn encode(&self, request: &PictureRequest) -> Result<FakeJob, PipelineError> {
        sleep_ms(self.flags.fake_encode_ms);
        let mut hash = Sha256::new();
        hash.update(request.seed.to_le_bytes());
        hash.update(request.prompt.as_bytes());
        for WornAdapter { name, digest, weight } in &request.adapters {
            let missing =
                || PipelineError::Failed { step: "find an adapter", source: format!("'{name}' is not here").into() };
            hash.update(self.adapters.get(digest).ok_or_else(missing)?.hash);
            hash.update(weight.to_le_bytes());
        }
        let BatchKey { input_channels: _, height, width, text_length: _, rows } = self.batch_key(request);
        let positions = u64::from(height) * u64::from(width) * u64::from(rows);
        let (size, hash, calls) = (request.size, hash.finalize().into(), request.model_calls());
        Ok(FakeJob { size, positions, hash, edit: request.edit.clone(), taken: 0, calls })
    }

    fn denoise_step(&self, batch: &mut [&mut FakeJob]) -> Result<(), PipelineError> {
        let largest = batch.iter().map(|job| job.size.pixels()).max().unwrap_or_default() as f64 / REFERENCE_PIXELS;
        let positions: u64 = batch.iter().map(|job| job.positions).sum();
        self.peak.store(positions * self.flags.fake_position_bytes, Relaxed);
        let work = SHARED + (1.0 - SHARED) * batch.len() as f64;
        sleep_ms(self.flags.fake_step_ms * largest * work);
        for job in batch.iter_mut() {
            job.taken += 1;
        }
        Ok(())
    }

    /// What the picture will be, and how often it was stepped.
    fn export(&self, job: &FakeJob) -> Result<Vec<u8>, PipelineError> {
        Ok([&job.hash[..], &job.taken.to_be_bytes()].concat())
    }

    fn resume(&self, request: &PictureRequest, exported: &[u8]) -> Result<FakeJob, PipelineError> {
        let job = self.encode(request)?;
        let taken = exported.strip_prefix(&job.hash).and_then(|taken| taken.try_into().ok()).map(u32::from_be_bytes);
        match taken {
            Some(taken) if taken < job.calls => Ok(FakeJob { taken, ..job }),
            Some(taken) => Err(PipelineError::Snapshot(format!("step {taken} of {}", job.calls))),
            None => Err(PipelineError::Snapshot("it is of another picture".into())),
        }
    }

    fn decode(&self, job: &FakeJob) -> Result<Picture, PipelineError> {
        sleep_ms(self.flags.fake_decode_ms * job.size.pixels() as f64 / REFERENCE_PIXELS);
        Ok(finished(job))
    }

    fn preview(&self, job: &FakeJob) -> Result<Option<Picture>, PipelineError> {
        Ok((job.taken > 0).then(|| faded(finished(job), job.taken, job.calls)))
    }

    fn tasks(&self) -> &[Task] {
        self.tasks
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        prompt.split_whitespace().count() as u32 + 2 // begin and end
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn decode_memory(&self) -> DecodeMemory {
        DecodeMemory { per_position: self.flags.fake_decode_bytes, most_positions: u64::MAX }
    }

    fn peak_bytes(&self) -> Option<u64> {
        (self.flags.fake_position_bytes > 0).then(|| self.peak.load(Relaxed))
    }
}

fn finished(job: &FakeJob) -> Picture {
    match &job.edit {
        None => draw(job),
        Some(Edit { picture, way: Way::Inpaint { mask, strength: _ } }) => mask.lay(tint(picture, &job.hash), picture),
        Some(Edit { picture, way: _ }) => tint(picture, &job.hash),
    }
}

/// Grey that becomes the picture.
fn faded(picture: Picture, taken: u32, calls: u32) -> Picture {
    let calls = calls.max(1);
    let taken = taken.min(calls);
    let fade =
        |value: u8| ((u64::from(value) * u64::from(taken) + 128 * u64::from(calls - taken)) / u64::from(calls)) as u8;
    Picture { size: picture.size, rgb: picture.rgb.into_iter().map(fade).collect() }
}

/// A gradient between two colours of the hash, with a checker that a third one turns on.
fn draw(job: &FakeJob) -> Picture {
    let (width, height) = (job.size.width(), job.size.height());
    let mut rgb = Vec::with_capacity(3 * (width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let along = (x + y) * 255 / (width + height);
            let checker = if (x / 8 + y / 8) % 2 == 0 { u32::from(job.hash[6] % 64) } else { 0 };
            for channel in 0..3 {
                let (from, to) = (u32::from(job.hash[channel]), u32::from(job.hash[channel + 3]));
                let value = (from * (255 - along) + to * along) / 255;
                rgb.push((value * (255 - checker) / 255) as u8);
            }
        }
    }
    Picture { size: job.size, rgb }
}

/// Half the picture, half a colour of the hash.
fn tint(picture: &Picture, hash: &[u8; 32]) -> Picture {
    let mixed = |(index, value): (usize, &u8)| u8::midpoint(*value, hash[index % 3]);
    Picture { size: picture.size, rgb: picture.rgb.iter().enumerate().map(mixed).collect() }
}

fn sleep_ms(ms: f64) {
    if ms > 0.0 {
        std::thread::sleep(Duration::from_secs_f64(ms / 1000.0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use easel_api::images::SamplerKind;

    fn pipeline() -> FakePipeline {
        let flags = FakeFlags {
            fake_step_ms: 0.0,
            fake_encode_ms: 0.0,
            fake_decode_ms: 0.0,
            fake_load_ms: 0.0,
            fake_upload_ms: 0.0,
            fake_position_bytes: 0,
            fake_decode_bytes: 0,
        };
        let (adapters, peak) = (BTreeMap::new(), AtomicU64::new(0));
        FakePipeline {
            flags,
            memory_bytes: 0,
            adapters,
            peak,
            tasks: tasks("StableDiffusionPipeline"),
            vocabulary: None,
        }
    }

    fn picture(prompt: &str, seed: u64) -> Picture {
        edited(prompt, seed, None)
    }

    fn edited(prompt: &str, seed: u64, edit: Option<Edit>) -> Picture {
        pipeline().decode(&pipeline().encode(&request(prompt, seed, edit)).unwrap()).unwrap()
    }

    fn request(prompt: &str, seed: u64, edit: Option<Edit>) -> PictureRequest {
        PictureRequest {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            seed,
            steps: 2,
            guidance_scale: 5.0,
            size: "64x32".parse().unwrap(),
            sampler: SamplerKind::Ddim,
            edit,
            adapters: Vec::new(),
        }
    }

    #[test]
    fn a_picture_depends_on_prompt_and_seed_alone() {
        assert_eq!(picture("a cat", 1), picture("a cat", 1));
        assert_ne!(picture("a cat", 1), picture("a cat", 2));
        assert_ne!(picture("a cat", 1), picture("a dog", 1));
    }

    #[test]
    fn a_preview_comes_closer_to_the_picture_with_every_step() {
        let mut job = pipeline().encode(&request("a cat", 1, None)).unwrap();
        let picture = pipeline().decode(&job).unwrap();
        assert_eq!(pipeline().preview(&job).unwrap(), None);
        let mut seen = || {
            pipeline().denoise_step(&mut [&mut job]).unwrap();
            pipeline().preview(&job).unwrap().unwrap()
        };
        let (first, last) = (seen(), seen());
        let off = |preview: &Picture| -> u32 {
            preview.rgb.iter().zip(&picture.rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
        };
        assert!(off(&first) > 0 && off(&last) == 0, "{} {}", off(&first), off(&last));
    }

    #[test]
    fn an_exported_job_goes_on_where_it_was_and_only_of_its_own_request() {
        let cat = request("a cat", 1, None);
        let mut job = pipeline().encode(&cat).unwrap();
        pipeline().denoise_step(&mut [&mut job]).unwrap();
        let exported = pipeline().export(&job).unwrap();
        assert_eq!(pipeline().resume(&cat, &exported).unwrap().taken, 1);
        for (request, exported) in [(request("a dog", 1, None), &exported[..]), (cat.clone(), &exported[1..])] {
            assert!(matches!(pipeline().resume(&request, exported), Err(PipelineError::Snapshot(_))));
        }
        pipeline().denoise_step(&mut [&mut job]).unwrap();
        let done = pipeline().export(&job).unwrap();
        assert!(pipeline().resume(&cat, &done).is_err(), "there is nothing left to do");
    }

    #[test]
    fn an_edit_depends_on_the_picture_too() {
        let way = || Way::Instruct { image_guidance_scale: 1.5 };
        let edit = |picture| Some(Edit { picture: Arc::new(picture), way: way() });
        let [cat, dog] = ["a cat", "a dog"].map(|prompt| edited("in red", 1, edit(picture(prompt, 1))));
        assert_ne!(cat, dog);
        assert_eq!(cat.rgb.len(), dog.rgb.len());
    }

    #[test]
    fn a_picture_has_as_many_bytes_as_its_size_says() {
        assert_eq!(picture("a cat", 1).rgb.len(), 64 * 32 * 3);
    }
}
