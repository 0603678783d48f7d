//! Pictures by diffusion, whatever the family: prompts to a conditioning, steps with guidance, latents to pixels.
//! Knows a family by its trait; does not know which request waits or who asked.

mod batch;
mod control;
pub(super) mod guard;
mod guidance;
mod job;
mod loader;
pub(super) mod pixels;
mod preview;
mod snapshot;
mod start;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;

use easel_api::ImageSize;
use easel_api::images::{Task, refusal_of};

use self::guard::{failed, guarded};
use self::guidance::Guidance;
pub use self::job::{Job, Progress};
pub use self::loader::TorchLoader;
use self::pixels::{all_finite, to_bytes};
use self::preview::Colours;
use super::cuda::CudaCopies;
use super::cuda::meter::Meter;
use super::device::Placement;
use super::families::{Family, Prompts};
use super::lora::{Adapter, Layers, Worn, wearing};
use super::vae::AutoencoderKl;
use super::weights::Tensors;
use crate::pipeline::{
    BatchKey, DecodeMemory, Edit, Picture, PictureRequest, Pipeline, PipelineError, Way, WornAdapter,
};
use crate::vocabulary::Vocabulary;

/// A checkpoint in the memory of one device.
#[derive(Debug)]
pub struct Diffusion {
    input: Input,
    tasks: &'static [Task],
    family: Box<dyn Family>,
    vae: AutoencoderKl,
    vocabulary: Option<Vocabulary>,
    placement: Placement,
    /// For previews; found when the first is asked for.
    colours: OnceCell<Colours>,
    /// By digest.
    adapters: BTreeMap<String, Adapter>,
    /// Of the last step, if it was measured.
    peak: Cell<Option<u64>>,
}

/// What a denoiser is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Latents alone: it draws, and draws pictures on.
    Latents,
    /// The same, and a picture that steers.
    Steered,
    /// Behind the latents those of the picture that shall be edited.
    WithPicture,
    /// Behind the latents a mask, and the latents of what lies outside of it.
    WithMask,
}

impl Input {
    /// Of all, where the latents have so many.
    pub(super) fn channels(self, latents: i64) -> i64 {
        match self {
            Self::Latents | Self::Steered => latents,
            Self::WithPicture => 2 * latents,
            Self::WithMask => latents + 1 + latents,
        }
    }

    fn tasks(self, encodes: bool) -> &'static [Task] {
        match self {
            Self::Latents if encodes => &[Task::Generate, Task::ImageToImage, Task::Inpaint],
            Self::Latents => &[Task::Generate],
            Self::Steered => &[Task::Control],
            Self::WithPicture => &[Task::Instruct],
            Self::WithMask => &[Task::Inpaint],
        }
    }
}

impl Pipeline for Diffusion {
    type Job = Job;
    type Adapter = Adapter;
    type Layers = Layers;
    type Parked = ParkedDiffusion;

    fn park(self) -> Result<ParkedDiffusion, PipelineError> {
        let device = self.placement.device;
        guarded("park the checkpoint", || {
            let copies = CudaCopies::of(device);
            let parks = |tensors: &Tensors| tensors.park(device, copies);
            self.tensors().into_iter().try_for_each(parks).map_err(|error| failed("park the checkpoint", error))
        })?;
        Ok(ParkedDiffusion(Self { adapters: BTreeMap::new(), ..self }))
    }

    fn wake(ParkedDiffusion(pipeline): ParkedDiffusion) -> Result<Self, PipelineError> {
        let device = pipeline.placement.device;
        guarded("wake the checkpoint", || {
            let copies = CudaCopies::of(device);
            let wakes = |tensors: &Tensors| tensors.wake(device, copies);
            pipeline.tensors().into_iter().try_for_each(wakes).map_err(|error| failed("wake the checkpoint", error))
        })?;
        Ok(pipeline)
    }

    fn parked_bytes(ParkedDiffusion(pipeline): &ParkedDiffusion) -> u64 {
        pipeline.memory_bytes()
    }

    fn batch_key(&self, request: &PictureRequest) -> BatchKey {
        BatchKey {
            input_channels: self.family.in_channels() as u32,
            height: request.size.height() / self.vae.factor(),
            width: request.size.width() / self.vae.factor(),
            text_length: self.family.text_length() as u32,
            rows: self.guidance(request).rows() as u32,
        }
    }

    fn layers(&self) -> Layers {
        self.family.adaptable()
    }

    fn hold_adapter(&mut self, digest: &str, adapter: Adapter) {
        self.adapters.insert(digest.to_owned(), adapter);
    }

    fn drop_adapter(&mut self, digest: &str) {
        self.adapters.remove(digest);
    }

    fn adapter_bytes(adapter: &Adapter) -> u64 {
        adapter.bytes()
    }

    fn encode(&self, request: &PictureRequest) -> Result<Job, PipelineError> {
        guarded("encode the prompt", || self.start(request))
    }

    fn denoise_step(&self, batch: &mut [&mut Job]) -> Result<(), PipelineError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.peak.set(None);
        guarded("denoise a step", || {
            let meter = Meter::begin(self.placement.device);
            // All jobs move together at the end, so that a failure leaves every one of them where it was.
            let steps = batch::next_steps(self, batch)?;
            for (job, step) in batch.iter_mut().zip(steps) {
                job.advance(step);
            }
            self.peak.set(meter.and_then(Meter::end));
            Ok(())
        })
    }

    fn export(&self, job: &Job) -> Result<Vec<u8>, PipelineError> {
        guarded("export a job", || snapshot::write(job.progress()))
    }

    fn resume(&self, request: &PictureRequest, exported: &[u8]) -> Result<Job, PipelineError> {
        guarded("resume a job", || {
            let job = self.start(request)?;
            let progress = snapshot::read(exported, &job, request.seed)?;
            Ok(job.resumed(progress))
        })
    }

    fn decode(&self, job: &Job) -> Result<Picture, PipelineError> {
        guarded("decode the picture", || {
            all_finite(job.latents())?;
            let pixels = self.vae.decode(job.latents()); // [1, 3, height, width]
            all_finite(&pixels)?;
            Ok(finished(job, to_bytes(&pixels)?))
        })
    }

    fn preview(&self, job: &Job) -> Result<Option<Picture>, PipelineError> {
        guarded("draw a preview", || {
            let Some(latents) = job.foreseen() else { return Ok(None) };
            let colours = self.colours.get_or_init(|| Colours::fit(&self.vae));
            let pixels = colours.draw(&latents, job.size()); // [1, 3, height, width]
            all_finite(&pixels)?;
            Ok(Some(finished(job, to_bytes(&pixels)?)))
        })
    }

    fn tasks(&self) -> &[Task] {
        self.tasks
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        self.family.text_tokens(prompt)
    }

    fn decode_memory(&self) -> DecodeMemory {
        self.vae.decode_memory()
    }

    fn peak_bytes(&self) -> Option<u64> {
        self.peak.get()
    }

    fn memory_bytes(&self) -> u64 {
        self.tensors().into_iter().map(Tensors::bytes).sum()
    }
}

/// With its weights in the host's memory.
#[derive(Debug)]
pub struct ParkedDiffusion(Diffusion);

impl Diffusion {
    fn tensors(&self) -> Vec<&Tensors> {
        let mut tensors = self.family.tensors();
        tensors.push(self.vae.tensors());
        tensors
    }

    fn start(&self, request: &PictureRequest) -> Result<Job, PipelineError> {
        self.check_task(request)?;
        check_sizes(request)?;
        let shape = self.latent_shape(request.size)?;
        let [_, _, height, width] = shape;
        let sampler = self
            .family
            .sampler(request.sampler, request.steps, height * width)
            .map_err(|error| PipelineError::Unsupported(error.to_string()))?;
        let start = self.begin(request, &sampler, shape)?;
        let guidance = self.guidance(request);
        let negative = match guidance {
            Guidance::None => None,
            Guidance::Text(_) | Guidance::TextAndPicture { .. } => Some(request.negative_prompt.as_str()),
        };
        let prompts = Prompts { negative, prompt: &request.prompt, guidance_scale: request.guidance_scale };
        let rows = vec![self.worn(&request.adapters)?; prompts.rows().len()];
        let conditioning = wearing(&rows, || self.family.encode(prompts, request.size))?;
        Ok(Job::new(request, start, conditioning, guidance, sampler))
    }

    fn guidance(&self, request: &PictureRequest) -> Guidance {
        if self.family.guides_itself() { Guidance::None } else { Guidance::of(request) }
    }

    fn check_task(&self, request: &PictureRequest) -> Result<(), PipelineError> {
        let refusal = refusal_of(self.tasks, request.task());
        refusal.map_or(Ok(()), |text| Err(PipelineError::Unsupported(text.into())))
    }

    fn worn(&self, adapters: &[WornAdapter]) -> Result<Vec<Worn<'_>>, PipelineError> {
        let worn = |WornAdapter { name, digest, weight }: &WornAdapter| {
            let adapter = self.adapters.get(digest);
            let adapter = adapter.ok_or_else(|| failed("find an adapter", format!("'{name}' is not in memory")))?;
            Ok(Worn { adapter, weight: f64::from(*weight) })
        };
        adapters.iter().map(worn).collect()
    }

    fn latent_shape(&self, size: ImageSize) -> Result<[i64; 4], PipelineError> {
        let factor = self.vae.factor();
        if !size.width().is_multiple_of(factor) || !size.height().is_multiple_of(factor) {
            let text = format!("{size} is not a multiple of the model's {factor} pixels wide and high");
            return Err(PipelineError::Unsupported(text));
        }
        let (height, width) = (i64::from(size.height() / factor), i64::from(size.width() / factor));
        let why = |text: String| PipelineError::Unsupported(format!("{size} can't be drawn: {text}"));
        self.family.check_latents(height, width).map_err(why)?;
        Ok([1, self.vae.latent_channels(), height, width])
    }
}

/// What is sent with a request is as large as what it asks for.
fn check_sizes(request: &PictureRequest) -> Result<(), PipelineError> {
    let Some(Edit { picture, way }) = &request.edit else { return Ok(()) };
    let wrong = |what: &str, size: ImageSize| {
        let text = format!("the {what} is {size}, the request {}: they must be equal", request.size);
        Err(PipelineError::Unsupported(text))
    };
    let pixels = request.size.pixels();
    if picture.size != request.size || picture.rgb.len() as u64 != 3 * pixels {
        return wrong("picture", picture.size);
    }
    match way {
        Way::Inpaint { mask, strength: _ } if mask.size != request.size || mask.edited.len() as u64 != pixels => {
            wrong("mask", mask.size)
        }
        Way::Instruct { .. } | Way::ImageToImage { .. } | Way::Inpaint { .. } | Way::Control(_) => Ok(()),
    }
}

/// A picture that was filled in keeps its own pixels elsewhere, to the bit.
fn finished(job: &Job, rgb: Vec<u8>) -> Picture {
    let drawn = Picture { size: job.size(), rgb };
    match job.edit() {
        Some(Edit { picture, way: Way::Inpaint { mask, strength: _ } }) => mask.lay(drawn, picture),
        Some(_) | None => drawn,
    }
}
