//! The Stable Diffusion 1/2 pipeline: prompt to embeddings, steps with guidance, latents to pixels.
//! Knows the parts by their forward functions; does not know which request waits or who asked.

mod batch;
mod guard;
mod job;
mod loader;
mod noise;

use easel_api::ImageSize;
use tch::{Kind, Tensor};

use self::guard::{failed, guarded};
pub use self::job::Job;
pub use self::loader::TorchLoader;
use super::clip::ClipTextModel;
use super::device::Placement;
use super::sampler::Sampler;
use super::sampler::schedule::NoiseSchedule;
use super::tokenizer::ClipTokenizer;
use super::unet::UNet2DConditionModel;
use super::vae::AutoencoderKl;
use crate::pipeline::{BatchKey, Picture, PictureRequest, Pipeline, PipelineError};

/// A checkpoint in the memory of one device.
#[derive(Debug)]
pub struct StableDiffusion {
    tokenizer: ClipTokenizer,
    text_encoder: ClipTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    schedule: NoiseSchedule,
    placement: Placement,
}

impl Pipeline for StableDiffusion {
    type Job = Job;

    fn batch_key(&self, request: &PictureRequest) -> BatchKey {
        BatchKey {
            input_channels: self.unet.in_channels() as u32,
            height: request.size.height() / self.vae.factor(),
            width: request.size.width() / self.vae.factor(),
            text_length: self.tokenizer.length() as u32,
            guidance: has_guidance(request),
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
            let latents = batch::next_latents(&self.unet, batch)?;
            for (job, latents) in batch.iter_mut().zip(latents) {
                job.advance(latents);
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
        let latents = noise::draw(request.seed, &shape).to_device(self.placement.device) * sigma;
        let guidance = has_guidance(request).then_some(request.guidance_scale);
        let prompts = match guidance {
            Some(_) => vec![request.negative_prompt.as_str(), request.prompt.as_str()],
            None => vec![request.prompt.as_str()],
        };
        let tokens: Vec<Vec<i64>> = prompts
            .into_iter()
            .map(|prompt| self.tokenizer.encode(prompt))
            .collect::<Result<_, _>>()
            .map_err(|error| unsupported(format!("the prompt can't be tokenised: {error}")))?;
        let text = self.text_encoder.forward(&tokens); // [1 or 2, length, channels]
        Ok(Job::new(request.size, latents, text, guidance, sampler))
    }

    fn latent_shape(&self, size: ImageSize) -> Result<[i64; 4], PipelineError> {
        let factor = self.vae.factor();
        if !size.width().is_multiple_of(factor) || !size.height().is_multiple_of(factor) {
            let text = format!("{size} is not a multiple of the model's {factor} pixels wide and high");
            return Err(PipelineError::Unsupported(text));
        }
        Ok([1, self.unet.in_channels(), i64::from(size.height() / factor), i64::from(size.width() / factor)])
    }
}

/// Up to 1 guidance would leave the prediction as it is or weaken it; diffusers skips it too.
fn has_guidance(request: &PictureRequest) -> bool {
    request.guidance_scale > 1.0
}

fn all_finite(values: &Tensor) -> Result<(), PipelineError> {
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
