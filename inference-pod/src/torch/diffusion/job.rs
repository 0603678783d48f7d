//! One picture on its way: latents, what the denoiser reads beside them, sampler, and the step it has reached.

use easel_api::ImageSize;
use tch::Tensor;

use super::guidance::Guidance;
use crate::torch::families::Conditioning;
use crate::torch::sampler::Sampler;

#[derive(Debug)]
pub struct Job {
    size: ImageSize,
    /// `[1, channels, h, w]` of f32, whatever the model's dtype: rounding here would add up over the steps.
    latents: Tensor,
    /// `[1, channels, h, w]` of f32: what is edited.
    picture: Option<Tensor>,
    /// One row, or with guidance two: the negative prompt first.
    conditioning: Conditioning,
    guidance: Guidance,
    sampler: Sampler,
    step: usize,
}

impl Job {
    pub(super) fn new(
        size: ImageSize,
        latents: Tensor,
        picture: Option<Tensor>,
        conditioning: Conditioning,
        guidance: Guidance,
        sampler: Sampler,
    ) -> Self {
        Self { size, latents, picture, conditioning, guidance, sampler, step: 0 }
    }

    pub fn size(&self) -> ImageSize {
        self.size
    }

    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    pub fn is_finished(&self) -> bool {
        self.step >= self.sampler.steps()
    }

    pub(super) fn guidance(&self) -> Guidance {
        self.guidance
    }

    pub(super) fn timestep(&self) -> f32 {
        self.sampler.timestep(self.step)
    }

    /// What the model is shown in a row: the latents, and behind them the picture's, or zeros.
    pub(super) fn model_input(&self, row: i64) -> Tensor {
        let latents = self.sampler.scale_model_input(&self.latents, self.step);
        match &self.picture {
            None => latents,
            Some(picture) if self.guidance.sees_picture(row) => Tensor::cat(&[&latents, picture], 1),
            Some(picture) => Tensor::cat(&[latents, picture.zeros_like()], 1),
        }
    }

    /// The one row that a row of the batch reads.
    pub(super) fn conditioning(&self, row: i64) -> Conditioning {
        self.conditioning.row(self.guidance.text_of(row))
    }

    /// The latents after this step, given the model's output with guidance applied.
    pub(super) fn stepped(&self, output: &Tensor) -> Tensor {
        self.sampler.step(output, self.step, &self.latents)
    }

    pub(super) fn advance(&mut self, latents: Tensor) {
        self.latents = latents;
        self.step += 1;
    }
}
