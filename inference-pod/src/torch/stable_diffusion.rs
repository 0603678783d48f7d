//! Stable Diffusion 1/2 and its editing kind, `InstructPix2Pix`: prompt to embeddings, steps with guidance, latents to
//! pixels.
//! Knows the parts by their forward functions; does not know which request waits or who asked.

mod batch;
pub(super) mod guard;
mod guidance;
mod job;
mod loader;

use easel_api::ImageSize;
use tch::{Kind, Tensor};

use self::guard::{failed, guarded};
use self::guidance::Guidance;
pub use self::job::{Job, Progress};
pub use self::loader::TorchLoader;
use super::clip::ClipTextModel;
use super::device::Placement;
use super::sampler::Sampler;
use super::sampler::history::History;
use super::sampler::noise::Noise;
use super::sampler::schedule::NoiseSchedule;
use super::tokenizer::ClipTokenizer;
use super::unet::UNet2DConditionModel;
use super::vae::AutoencoderKl;
use crate::pipeline::{BatchKey, Edit, Picture, PictureRequest, Pipeline, PipelineError};
use crate::vocabulary::Vocabulary;

/// A checkpoint in the memory of one device.
#[derive(Debug)]
pub struct StableDiffusion {
    task: Task,
    tokenizer: ClipTokenizer,
    text_encoder: ClipTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    schedule: NoiseSchedule,
    vocabulary: Option<Vocabulary>,
    placement: Placement,
}

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Generate,
    Edit,
}

impl Pipeline for StableDiffusion {
    type Job = Job;

    fn batch_key(&self, request: &PictureRequest) -> BatchKey {
        BatchKey {
            input_channels: self.unet.in_channels() as u32,
            height: request.size.height() / self.vae.factor(),
            width: request.size.width() / self.vae.factor(),
            text_length: self.tokenizer.length() as u32,
            rows: Guidance::of(request).rows() as u32,
        }
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
            let moves = batch::next_moves(&self.unet, batch)?;
            for (job, moved) in batch.iter_mut().zip(moves) {
                job.advance(moved);
            }
            Ok(())
        })
    }

    fn decode(&self, job: &Job) -> Result<Picture, PipelineError> {
        guarded("decode the picture", || {
            all_finite(job.latents())?;
            let pixels = self.vae.decode(job.latents()); // [1, 3, height, width]
            all_finite(&pixels)?;
            let rgb = to_bytes(&pixels).map_err(|error| failed("decode the picture", error))?;
            Ok(Picture { size: job.size(), rgb })
        })
    }

    fn edits(&self) -> bool {
        self.task == Task::Edit
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        self.tokenizer.count(prompt)
    }

    fn memory_bytes(&self) -> u64 {
        self.text_encoder.bytes() + self.unet.bytes() + self.vae.bytes()
    }
}

impl StableDiffusion {
    fn start(&self, request: &PictureRequest) -> Result<Job, PipelineError> {
        let unsupported = |text: String| PipelineError::Unsupported(text);
        let sampler = Sampler::new(request.sampler, &self.schedule, request.steps)
            .map_err(|error| unsupported(error.to_string()))?;
        let shape = self.latent_shape(request.size)?;
        let sigma = f64::from(sampler.init_noise_sigma());
        let (drawn, noise) = Noise::new(request.seed).next(&shape);
        let latents = drawn.to_device(self.placement.device) * sigma;
        let progress = Progress { step: 0, latents, history: History::new(noise) };
        let picture = self.picture_latents(request)?;
        let guidance = Guidance::of(request);
        let prompts = match guidance {
            Guidance::None => vec![request.prompt.as_str()],
            Guidance::Text(_) | Guidance::TextAndPicture { .. } => {
                vec![request.negative_prompt.as_str(), request.prompt.as_str()]
            }
        };
        let tokens: Vec<Vec<i64>> = prompts
            .into_iter()
            .map(|prompt| self.tokenizer.encode(prompt))
            .collect::<Result<_, _>>()
            .map_err(|error| unsupported(format!("the prompt can't be tokenised: {error}")))?;
        let text = self.text_encoder.forward(&tokens); // [1 or 2, length, channels]
        Ok(Job::new(request.size, progress, picture, text, guidance, sampler))
    }

    /// `[1, channels, h, w]` of the picture that shall be edited. diffusers 0.42.1,
    /// `pipeline_stable_diffusion_instruct_pix2pix.py`, `prepare_image_latents`: the mode, and no scaling factor.
    fn picture_latents(&self, request: &PictureRequest) -> Result<Option<Tensor>, PipelineError> {
        let Edit { picture, image_guidance_scale: _ } = match (&request.edit, self.task) {
            (Some(edit), Task::Edit) => edit,
            (None, Task::Generate) => return Ok(None),
            (Some(_), Task::Generate) => return Err(PipelineError::Unsupported("this model can't edit".into())),
            (None, Task::Edit) => return Err(PipelineError::Unsupported("this model needs a picture to edit".into())),
        };
        if picture.size != request.size || picture.rgb.len() as u64 != 3 * request.size.pixels() {
            let text = format!("the picture is {}, the request {}: they must be equal", picture.size, request.size);
            return Err(PipelineError::Unsupported(text));
        }
        let latents = self.vae.encode(&from_bytes(picture));
        latents.map(Some).ok_or_else(|| failed("encode the picture", "the VAE was loaded without its encoder"))
    }

    fn latent_shape(&self, size: ImageSize) -> Result<[i64; 4], PipelineError> {
        let factor = self.vae.factor();
        if !size.width().is_multiple_of(factor) || !size.height().is_multiple_of(factor) {
            let text = format!("{size} is not a multiple of the model's {factor} pixels wide and high");
            return Err(PipelineError::Unsupported(text));
        }
        Ok([1, self.vae.latent_channels(), i64::from(size.height() / factor), i64::from(size.width() / factor)])
    }
}

pub(super) fn all_finite(values: &Tensor) -> Result<(), PipelineError> {
    let finite = values.isfinite().all();
    if bool::try_from(finite).map_err(|error| failed("check the numbers", error))? {
        Ok(())
    } else {
        Err(PipelineError::NotFinite)
    }
}

/// `[1, 3, h, w]` of -1..1 → `[h][w][rgb]` of 0..255. diffusers 0.42.1, `image_processor.py`.
fn to_bytes(pixels: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let unit = (pixels / 2.0 + 0.5).clamp(0.0, 1.0);
    let bytes = (unit.squeeze_dim(0).permute([1, 2, 0]) * 255.0).round().to_kind(Kind::Uint8);
    Vec::try_from(bytes.to_device(tch::Device::Cpu).flatten(0, -1).contiguous())
}

/// `[h][w][rgb]` of 0..255 → `[1, 3, h, w]` of -1..1, in f32 on the CPU. diffusers 0.42.1, `image_processor.py`.
fn from_bytes(picture: &Picture) -> Tensor {
    let (height, width) = (i64::from(picture.size.height()), i64::from(picture.size.width()));
    let pixels = Tensor::from_slice(&picture.rgb).view([1, height, width, 3]).permute([0, 3, 1, 2]);
    (pixels.to_kind(Kind::Float) / 255.0) * 2.0 - 1.0
}
