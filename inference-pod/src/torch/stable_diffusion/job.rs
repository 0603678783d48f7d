//! One picture on its way: latents, text, sampler, and the step it has reached.

use easel_api::ImageSize;
use tch::Tensor;

use super::guidance::Guidance;
use crate::torch::sampler::Sampler;

#[derive(Debug)]
pub struct Job {
    size: ImageSize,
    /// `[1, channels, h, w]` of f32, whatever the model's dtype: rounding here would add up over the steps.
    latents: Tensor,
    /// `[1, channels, h, w]` of f32: what is edited.
    picture: Option<Tensor>,
    /// `[1, length, channels]`, or with guidance `[2, ..]`: the negative prompt first.
    text: Tensor,
    guidance: Guidance,
    sampler: Sampler,
    step: usize,
}

impl Job {
    pub(super) fn new(
        size: ImageSize,
        latents: Tensor,
        picture: Option<Tensor>,
        text: Tensor,
        guidance: Guidance,
        sampler: Sampler,
    ) -> Self {
        Self { size, latents, picture, text, guidance, sampler, step: 0 }
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

    /// `[1, length, channels]`
    pub(super) fn text_row(&self, row: i64) -> Tensor {
        self.text.narrow(0, self.guidance.text_of(row), 1)
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
