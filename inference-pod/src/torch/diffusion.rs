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

use std::cell::OnceCell;
use std::collections::BTreeMap;

use easel_api::ImageSize;
use tch::Tensor;

use self::control::Steering;
use self::guard::{failed, guarded};
use self::guidance::Guidance;
use self::job::Seen;
pub use self::job::{Job, Progress};
pub use self::loader::TorchLoader;
use self::pixels::{all_finite, from_bytes, to_bytes, unit_from_bytes};
use self::preview::Colours;
use super::device::Placement;
use super::families::{Family, Prompts};
use super::lora::{Adapter, Layers, Worn, wearing};
use super::sampler::history::History;
use super::sampler::noise::Noise;
use super::vae::AutoencoderKl;
use crate::pipeline::{
    BatchKey, ControlOptions, DecodeMemory, Edit, Picture, PictureRequest, Pipeline, PipelineError, WornAdapter,
};
use crate::vocabulary::Vocabulary;

/// A checkpoint in the memory of one device.
#[derive(Debug)]
pub struct Diffusion {
    task: Task,
    family: Box<dyn Family>,
    vae: AutoencoderKl,
    vocabulary: Option<Vocabulary>,
    placement: Placement,
    /// For previews; found when the first is asked for.
    colours: OnceCell<Colours>,
    /// By digest.
    adapters: BTreeMap<String, Adapter>,
}

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Generate,
    Edit,
    /// Generate as a picture steers.
    Control,
}

impl Pipeline for Diffusion {
    type Job = Job;
    type Adapter = Adapter;
    type Layers = Layers;

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
        guarded("denoise a step", || {
            // All jobs move together at the end, so that a failure leaves every one of them where it was.
            let steps = batch::next_steps(self, batch)?;
            for (job, step) in batch.iter_mut().zip(steps) {
                job.advance(step);
            }
            Ok(())
        })
    }

    fn decode(&self, job: &Job) -> Result<Picture, PipelineError> {
        guarded("decode the picture", || {
            all_finite(job.latents())?;
            let pixels = self.vae.decode(job.latents()); // [1, 3, height, width]
            all_finite(&pixels)?;
            Ok(Picture { size: job.size(), rgb: to_bytes(&pixels)? })
        })
    }

    fn preview(&self, job: &Job) -> Result<Option<Picture>, PipelineError> {
        guarded("draw a preview", || {
            let Some(latents) = job.foreseen() else { return Ok(None) };
            let colours = self.colours.get_or_init(|| Colours::fit(&self.vae));
            let pixels = colours.draw(&latents, job.size()); // [1, 3, height, width]
            all_finite(&pixels)?;
            Ok(Some(Picture { size: job.size(), rgb: to_bytes(&pixels)? }))
        })
    }

    fn edits(&self) -> bool {
        match self.task {
            Task::Generate => false,
            Task::Edit | Task::Control => true,
        }
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

    fn memory_bytes(&self) -> u64 {
        self.family.bytes() + self.vae.bytes()
    }
}

impl Diffusion {
    fn start(&self, request: &PictureRequest) -> Result<Job, PipelineError> {
        let shape = self.latent_shape(request.size)?;
        let [_, _, height, width] = shape;
        let sampler = self
            .family
            .sampler(request.sampler, request.steps, height * width)
            .map_err(|error| PipelineError::Unsupported(error.to_string()))?;
        let sigma = f64::from(sampler.init_noise_sigma());
        let (drawn, noise) = Noise::new(request.seed).next(&shape);
        let latents = drawn.to_device(self.placement.device) * sigma;
        let progress = Progress { step: 0, latents, history: History::new(noise) };
        let seen = self.see(request)?;
        let guidance = self.guidance(request);
        let negative = match guidance {
            Guidance::None => None,
            Guidance::Text(_) | Guidance::TextAndPicture { .. } => Some(request.negative_prompt.as_str()),
        };
        let prompts = Prompts { negative, prompt: &request.prompt, guidance_scale: request.guidance_scale };
        let rows = vec![self.worn(&request.adapters)?; prompts.rows().len()];
        let conditioning = wearing(&rows, || self.family.encode(prompts, request.size))?;
        let job = Job::new(request.size, progress, seen, conditioning, guidance, sampler);
        Ok(job.wearing(request.adapters.clone()))
    }

    fn guidance(&self, request: &PictureRequest) -> Guidance {
        if self.family.guides_itself() { Guidance::None } else { Guidance::of(request, self.task) }
    }

    fn see(&self, request: &PictureRequest) -> Result<Seen, PipelineError> {
        let unsupported = |text: &str| Err(PipelineError::Unsupported(text.into()));
        let Some(Edit { picture, image_guidance_scale: _, control }) = &request.edit else {
            return match self.task {
                Task::Generate => Ok(Seen::Nothing),
                Task::Edit => unsupported("this model needs a picture to edit"),
                Task::Control => unsupported("this model needs a picture that steers it"),
            };
        };
        if control.is_some() && self.task != Task::Control {
            return unsupported("this model has no ControlNet: leave out what says how it steers");
        }
        if picture.size != request.size || picture.rgb.len() as u64 != 3 * request.size.pixels() {
            let text = format!("the picture is {}, the request {}: they must be equal", picture.size, request.size);
            return Err(PipelineError::Unsupported(text));
        }
        match self.task {
            Task::Generate => unsupported("this model can't edit"),
            Task::Edit => self.picture_latents(picture).map(Seen::Latents),
            Task::Control => self.steering(picture, control.unwrap_or_default()).map(Seen::Steering),
        }
    }

    /// `[1, channels, h, w]` of the picture that shall be edited. diffusers 0.42.1,
    /// `pipeline_stable_diffusion_instruct_pix2pix.py`, `prepare_image_latents`: the mode, and no scaling factor.
    fn picture_latents(&self, picture: &Picture) -> Result<Tensor, PipelineError> {
        let latents = self.vae.encode(&from_bytes(picture));
        latents.ok_or_else(|| failed("encode the picture", "the VAE was loaded without its encoder"))
    }

    fn steering(&self, picture: &Picture, options: ControlOptions) -> Result<Steering, PipelineError> {
        let hint = self.family.hint(&unit_from_bytes(picture));
        let hint =
            hint.ok_or_else(|| failed("read the picture", "the checkpoint was loaded without its ControlNet"))?;
        Ok(Steering { hint, options })
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
