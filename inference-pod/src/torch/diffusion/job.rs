//! One picture on its way: what the denoiser reads beside the latents, sampler, and how far it has come.

use easel_api::ImageSize;
use tch::Tensor;

use super::control::Steering;
use super::guidance::Guidance;
use crate::pipeline::WornAdapter;
use crate::torch::families::Conditioning;
use crate::torch::sampler::Sampler;
use crate::torch::sampler::history::{History, Moved};

/// How far a picture has come: all that its steps have made, and all that the rest of them needs beside the request.
#[derive(Debug)]
pub struct Progress {
    /// Model calls so far.
    pub step: usize,
    /// `[1, channels, h, w]` of f32, whatever the model's dtype: rounding here would add up over the steps.
    pub latents: Tensor,
    pub history: History,
}

/// What the denoiser sees of the request's picture.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    /// `[1, channels, h, w]` of f32: what is edited.
    Latents(Tensor),
    Steering(Steering),
}

#[derive(Debug)]
pub struct Job {
    size: ImageSize,
    progress: Progress,
    seen: Seen,
    /// One row, or with guidance two: the negative prompt first.
    conditioning: Conditioning,
    guidance: Guidance,
    sampler: Sampler,
    adapters: Vec<WornAdapter>,
    /// What the last step was made of, for a preview; absent before the first step here.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    step: usize,
    /// Before the step.
    latents: Tensor,
    /// Of the model, guidance applied.
    output: Tensor,
}

/// A step that was computed and not taken yet.
pub(super) struct Step {
    output: Tensor,
    moved: Moved,
}

impl Job {
    pub(super) fn new(
        size: ImageSize,
        progress: Progress,
        seen: Seen,
        conditioning: Conditioning,
        guidance: Guidance,
        sampler: Sampler,
    ) -> Self {
        Self { size, progress, seen, conditioning, guidance, sampler, adapters: Vec::new(), last: None }
    }

    /// With these adapters, which its text was read with too.
    #[must_use]
    pub(super) fn wearing(self, adapters: Vec<WornAdapter>) -> Self {
        Self { adapters, ..self }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A job of the same request that goes on from there, wherever the steps before were taken.
    #[must_use]
    pub fn resumed(self, progress: Progress) -> Self {
        Self { progress, last: None, ..self }
    }

    pub fn size(&self) -> ImageSize {
        self.size
    }

    pub fn latents(&self) -> &Tensor {
        &self.progress.latents
    }

    pub fn is_finished(&self) -> bool {
        self.progress.step >= self.sampler.steps()
    }

    pub(super) fn adapters(&self) -> &[WornAdapter] {
        &self.adapters
    }

    pub(super) fn guidance(&self) -> Guidance {
        self.guidance
    }

    pub(super) fn timestep(&self) -> f32 {
        self.sampler.timestep(self.progress.step)
    }

    /// What the model is shown in a row: the latents, and behind them the picture's, or zeros.
    pub(super) fn model_input(&self, row: i64) -> Tensor {
        let latents = self.sampler.scale_model_input(&self.progress.latents, self.progress.step);
        match &self.seen {
            Seen::Nothing | Seen::Steering(_) => latents,
            Seen::Latents(picture) if self.guidance.sees_picture(row) => Tensor::cat(&[&latents, picture], 1),
            Seen::Latents(picture) => Tensor::cat(&[latents, picture.zeros_like()], 1),
        }
    }

    /// The one row that a row of the batch reads in this step.
    pub(super) fn conditioning(&self, row: i64) -> Conditioning {
        let control = match &self.seen {
            Seen::Nothing | Seen::Latents(_) => None,
            Seen::Steering(steering) => Some(steering.at(self.progress.step, self.sampler.steps())),
        };
        Conditioning { control, ..self.conditioning.row(self.guidance.text_of(row)) }
    }

    /// Where this step leads, given the model's output with guidance applied.
    pub(super) fn stepped(&self, output: Tensor) -> Step {
        let Progress { step, latents, history } = &self.progress;
        let moved = self.sampler.step(&output, *step, latents, history);
        Step { output, moved }
    }

    pub(super) fn advance(&mut self, Step { output, moved: Moved { latents, history } }: Step) {
        let step = self.progress.step;
        let before = std::mem::replace(&mut self.progress, Progress { step: step + 1, latents, history });
        self.last = Some(Last { step, latents: before.latents, output });
    }

    /// `[1, channels, h, w]`: the picture that the last step took to be behind the noise.
    pub(super) fn foreseen(&self) -> Option<Tensor> {
        let Last { step, latents, output } = self.last.as_ref()?;
        Some(self.sampler.picture(output, *step, latents))
    }
}
