//! One call of the `UNet` for several jobs, which may be at different steps of different samplers.

use tch::Tensor;

use super::guard::failed;
use super::job::Job;
use crate::pipeline::PipelineError;
use crate::torch::unet::UNet2DConditionModel;

const STEP: &str = "denoise a step";

/// The latents of every job after its current step.
pub(super) fn next_latents(unet: &UNet2DConditionModel, jobs: &[&mut Job]) -> Result<Vec<Tensor>, PipelineError> {
    if jobs.iter().any(|job| job.is_finished()) {
        return Err(failed(STEP, "a job of the batch has no steps left"));
    }
    let guided = jobs[0].guidance().is_some();
    if jobs.iter().any(|job| job.guidance().is_some() != guided) {
        return Err(failed(STEP, "the batch mixes jobs with and without guidance"));
    }
    // With guidance every job has two rows: first all negative prompts, then all prompts.
    let rows = if guided { 2 } else { 1 };
    let inputs: Vec<Tensor> = jobs.iter().map(|job| job.model_input()).collect();
    let sample = Tensor::cat(&inputs, 0).repeat([rows, 1, 1, 1]); // [rows·jobs, channels, h, w]
    let times: Vec<f32> = jobs.iter().map(|job| job.timestep()).collect();
    let times = Tensor::from_slice(&times).repeat([rows]); // [rows·jobs]
    let text: Vec<Tensor> = (0..rows).flat_map(|row| jobs.iter().map(move |job| job.text_row(row))).collect();
    let text = Tensor::cat(&text, 0); // [rows·jobs, length, channels]

    let output = unet.forward(&sample, &times, &text).chunk(rows, 0); // rows × [jobs, channels, h, w]
    let stepped = |(index, job): (i64, &&mut Job)| {
        let row = |row: usize| output[row].narrow(0, index, 1); // [1, channels, h, w]
        let prediction = match job.guidance() {
            // diffusers 0.42.1, pipeline_stable_diffusion.py
            Some(scale) => row(0) + (row(1) - row(0)) * f64::from(scale),
            None => row(0),
        };
        job.stepped(&prediction)
    };
    Ok((0..).zip(jobs).map(stepped).collect())
}
