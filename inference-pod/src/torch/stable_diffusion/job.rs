//! One picture on its way: latents, text, sampler, and the step it has reached.

use easel_api::ImageSize;
use tch::Tensor;

use crate::torch::sampler::Sampler;

#[derive(Debug)]
pub struct Job {
    size: ImageSize,
    /// `[1, channels, h, w]` of f32, whatever the model's dtype: rounding here would add up over the steps.
    latents: Tensor,
    /// `[1, length, channels]`, or with guidance `[2, ..]`: the negative prompt first.
    text: Tensor,
    guidance: Option<f32>,
    sampler: Sampler,
    step: usize,
}

impl Job {
    pub(super) fn new(size: ImageSize, latents: Tensor, text: Tensor, guidance: Option<f32>, sampler: Sampler) -> Self {
        Self { size, latents, text, guidance, sampler, step: 0 }
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

    pub(super) fn guidance(&self) -> Option<f32> {
        self.guidance
    }

    pub(super) fn timestep(&self) -> f32 {
        self.sampler.timestep(self.step)
    }

    /// What the model is shown.
    pub(super) fn model_input(&self) -> Tensor {
        self.sampler.scale_model_input(&self.latents, self.step)
    }

    /// Without guidance there is one row, with it the negative prompt is row 0.
    pub(super) fn text_row(&self, row: i64) -> Tensor {
        self.text.narrow(0, row, 1)
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
