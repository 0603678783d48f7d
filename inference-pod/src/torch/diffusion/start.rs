//! Where a picture begins: in noise, or in another picture with noise on it, or with one shown beside it.
//! Draws random numbers in diffusers' order, so that a seed means what it means there; knows no prompt.

use tch::{Kind, Tensor};

use super::control::Steering;
use super::guard::failed;
use super::pixels::{from_bytes, from_mask, unit_from_bytes};
use super::{Diffusion, Input};
use crate::pipeline::{PictureRequest, PipelineError, Way};
use crate::torch::sampler::Sampler;
use crate::torch::sampler::noise::Noise;

/// Before the first model call.
pub(super) struct Start {
    /// `[1, channels, h, w]`
    pub(super) latents: Tensor,
    /// After all draws so far.
    pub(super) noise: Noise,
    pub(super) around: Around,
}

/// What every step reads beside the latents; the same from begin to end.
#[derive(Debug)]
pub(super) struct Around {
    /// Model calls of the sampler's whole run that come before the first one here.
    pub(super) skipped: usize,
    /// `[1, more channels, h, w]`: what the model is shown behind the latents.
    pub(super) behind: Option<Tensor>,
    pub(super) kept: Option<Kept>,
    pub(super) steering: Option<Steering>,
}

/// What shall stay of a picture, for models that see no mask: it is put back after every step, as noisy as the rest.
#[derive(Debug)]
pub(super) struct Kept {
    /// `[1, 1, h, w]`: 1 where the picture is drawn anew.
    mask: Tensor,
    picture: Tensor,
    noise: Tensor,
}

impl Kept {
    /// The latents before step `next`. diffusers 0.42.1, `pipeline_stable_diffusion_inpaint.py`, `__call__`.
    pub(super) fn put_back(&self, latents: &Tensor, sampler: &Sampler, next: usize) -> Tensor {
        let picture = if next < sampler.steps() {
            sampler.add_noise(&self.picture, &self.noise, next)
        } else {
            self.picture.shallow_clone()
        };
        picture * (1.0 - &self.mask) + latents * &self.mask
    }
}

/// The numbers that one generator gives, in the shape of the latents.
struct Draws<'a> {
    noise: Noise,
    shape: [i64; 4],
    diffusion: &'a Diffusion,
}

impl Draws<'_> {
    fn next(&mut self) -> Tensor {
        let (drawn, noise) = self.noise.next(&self.shape);
        self.noise = noise;
        drawn.to_device(self.diffusion.placement.device)
    }

    /// A picture's latents as the denoiser has them; diffusers samples them.
    fn encode(&mut self, pixels: &Tensor) -> Result<Tensor, PipelineError> {
        let drawn = self.next();
        self.diffusion.vae.encode_sampled(pixels, &drawn).ok_or_else(without_encoder)
    }
}

impl Diffusion {
    /// `prepare_latents` of diffusers 0.42.1: `pipeline_stable_diffusion.py`, `.._img2img.py`, `.._inpaint.py` and
    /// `.._instruct_pix2pix.py`. Those of the other families say the same, with a shift where their VAE has one.
    pub(super) fn begin(
        &self,
        request: &PictureRequest,
        sampler: &Sampler,
        shape: [i64; 4],
    ) -> Result<Start, PipelineError> {
        let mut draws = Draws { noise: Noise::new(request.seed), shape, diffusion: self };
        let skipped = skipped(request, sampler)?;
        let mut around = Around { skipped, behind: None, kept: None, steering: None };
        let sigma = f64::from(sampler.init_noise_sigma());
        let latents = match request.edit.as_ref().map(|edit| (&edit.picture, &edit.way)) {
            None => draws.next() * sigma,
            Some((picture, Way::Instruct { image_guidance_scale: _ })) => {
                // The mode, and no scaling factor.
                around.behind = Some(self.vae.encode(&from_bytes(picture)).ok_or_else(without_encoder)?);
                draws.next() * sigma
            }
            Some((picture, Way::Control(options))) => {
                let hint = self.family.hint(&unit_from_bytes(picture)).ok_or_else(without_controlnet)?;
                around.steering = Some(Steering { hint, options: *options });
                draws.next() * sigma
            }
            Some((picture, Way::ImageToImage { strength: _ })) => {
                let picture = draws.encode(&from_bytes(picture))?;
                sampler.add_noise(&picture, &draws.next(), skipped)
            }
            Some((picture, Way::Inpaint { mask, strength })) => {
                // With nothing of the picture left, it is drawn as from nothing.
                let latents = |picture: Option<&Tensor>, noise: &Tensor| match picture {
                    Some(picture) if !strength.is_whole() => sampler.add_noise(picture, noise, skipped),
                    Some(_) | None => noise * sigma,
                };
                let pixels = from_bytes(picture);
                let mask = from_mask(mask); // [1, 1, height, width]
                if self.input == Input::WithMask {
                    let picture = if strength.is_whole() { None } else { Some(draws.encode(&pixels)?) };
                    let latents = latents(picture.as_ref(), &draws.next());
                    let rest = draws.encode(&(pixels * (1.0 - &mask)))?;
                    around.behind = Some(Tensor::cat(&[self.shrunk(&mask, shape), rest], 1));
                    latents
                } else {
                    let (picture, noise) = (draws.encode(&pixels)?, draws.next());
                    let latents = latents(Some(&picture), &noise);
                    // diffusers encodes what lies outside of the mask here too, and never looks at it.
                    let _ = draws.next();
                    around.kept = Some(Kept { mask: self.shrunk(&mask, shape), picture, noise });
                    latents
                }
            }
        };
        Ok(Start { latents, noise: draws.noise, around })
    }

    /// `prepare_mask_latents`: a latent's mask is that of the first of its pixels.
    fn shrunk(&self, mask: &Tensor, [_, _, height, width]: [i64; 4]) -> Tensor {
        let small = mask.upsample_nearest2d([height, width], None, None); // [1, 1, h, w]
        small.to_kind(Kind::Float).to_device(self.placement.device)
    }
}

/// `get_timesteps`: which part of the run is left out.
fn skipped(request: &PictureRequest, sampler: &Sampler) -> Result<usize, PipelineError> {
    match request.model_calls() {
        0 => Err(PipelineError::Unsupported(format!("of {} steps this strength leaves none", request.steps))),
        calls => Ok(sampler.steps().saturating_sub(calls as usize)),
    }
}

fn without_encoder() -> PipelineError {
    failed("encode the picture", "the VAE was loaded without its encoder")
}

fn without_controlnet() -> PipelineError {
    failed("read the picture", "the checkpoint was loaded without its ControlNet")
}
