//! One picture on its way: what the denoiser reads beside the latents, sampler, and how far it has come.

use easel_api::ImageSize;
use tch::Tensor;

use super::guidance::Guidance;
use super::start::{Around, Start};
use crate::pipeline::{Edit, PictureRequest, WornAdapter};
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

#[derive(Debug)]
pub struct Job {
    size: ImageSize,
    edit: Option<Edit>,
    progress: Progress,
    around: Around,
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
    /// Of the sampler's run.
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
        request: &PictureRequest,
        start: Start,
        conditioning: Conditioning,
        guidance: Guidance,
        sampler: Sampler,
    ) -> Self {
        let Start { latents, noise, around } = start;
        let progress = Progress { step: 0, latents, history: History::new(noise) };
        let (size, edit, adapters) = (request.size, request.edit.clone(), request.adapters.clone());
        Self { size, edit, progress, around, conditioning, guidance, sampler, adapters, last: None }
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

    /// Of the whole run, those that were taken included.
    pub(super) fn steps(&self) -> usize {
        self.sampler.steps() - self.around.skipped
    }

    pub fn is_finished(&self) -> bool {
        self.step() >= self.sampler.steps()
    }

    pub(super) fn adapters(&self) -> &[WornAdapter] {
        &self.adapters
    }

    pub(super) fn guidance(&self) -> Guidance {
        self.guidance
    }

    /// What the request starts from.
    pub(super) fn edit(&self) -> Option<&Edit> {
        self.edit.as_ref()
    }

    /// Of the sampler's whole run, whose begin may have been left out.
    fn step(&self) -> usize {
        self.around.skipped + self.progress.step
    }

    pub(super) fn timestep(&self) -> f32 {
        self.sampler.timestep(self.step())
    }

    /// What the model is shown in a row: the latents, and what stands behind them, or zeros.
    pub(super) fn model_input(&self, row: i64) -> Tensor {
        let latents = self.sampler.scale_model_input(&self.progress.latents, self.step());
        match &self.around.behind {
            None => latents,
            Some(behind) if self.guidance.sees_picture(row) => Tensor::cat(&[&latents, behind], 1),
            Some(behind) => Tensor::cat(&[latents, behind.zeros_like()], 1),
        }
    }

    /// The one row that a row of the batch reads in this step.
    pub(super) fn conditioning(&self, row: i64) -> Conditioning {
        let control = self.around.steering.as_ref();
        let control = control.map(|steering| steering.at(self.step(), self.sampler.steps()));
        Conditioning { control, ..self.conditioning.row(self.guidance.text_of(row)) }
    }

    /// Where this step leads, given the model's output with guidance applied.
    pub(super) fn stepped(&self, output: Tensor) -> Step {
        let Progress { step: _, latents, history } = &self.progress;
        let step = self.step();
        let mut moved = self.sampler.step(&output, step, latents, history);
        if let Some(kept) = &self.around.kept {
            moved.latents = kept.put_back(&moved.latents, &self.sampler, step + 1);
        }
        Step { output, moved }
    }

    pub(super) fn advance(&mut self, Step { output, moved: Moved { latents, history } }: Step) {
        let step = self.step();
        let after = Progress { step: self.progress.step + 1, latents, history };
        let before = std::mem::replace(&mut self.progress, after);
        self.last = Some(Last { step, latents: before.latents, output });
    }

    /// `[1, channels, h, w]`: the picture that the last step took to be behind the noise.
    pub(super) fn foreseen(&self) -> Option<Tensor> {
        let Last { step, latents, output } = self.last.as_ref()?;
        Some(self.sampler.picture(output, *step, latents))
    }
}
