//! One call of the denoiser for several jobs, which may be at different steps of different samplers.

use tch::Tensor;

use super::Diffusion;
use super::guard::failed;
use super::job::{Job, Step};
use crate::pipeline::PipelineError;
use crate::torch::families::Conditioning;
use crate::torch::lora::wearing;

const STEP: &str = "denoise a step";

/// Where its current step leads every job.
pub(super) fn next_steps(model: &Diffusion, jobs: &[&mut Job]) -> Result<Vec<Step>, PipelineError> {
    if jobs.iter().any(|job| job.is_finished()) {
        return Err(failed(STEP, "a job of the batch has no steps left"));
    }
    let rows = jobs[0].guidance().rows();
    if jobs.iter().any(|job| job.guidance().rows() != rows) {
        return Err(failed(STEP, "the batch mixes jobs of different guidance"));
    }
    // The first rows of all jobs, then the second of all jobs, and so on.
    let inputs: Vec<Tensor> = (0..rows).flat_map(|row| jobs.iter().map(move |job| job.model_input(row))).collect();
    let sample = Tensor::cat(&inputs, 0); // [rows·jobs, channels, h, w]
    let times: Vec<f32> = jobs.iter().map(|job| job.timestep()).collect();
    let times = Tensor::from_slice(&times).repeat([rows]); // [rows·jobs]
    let read: Vec<Conditioning> = (0..rows).flat_map(|row| jobs.iter().map(move |job| job.conditioning(row))).collect();

    let worn = jobs.iter().map(|job| model.worn(job.adapters())).collect::<Result<Vec<_>, _>>()?;
    let worn: Vec<_> = (0..rows).flat_map(|_| worn.iter().cloned()).collect();
    let predict = || model.family.predict(&sample, &times, &Conditioning::cat(&read));
    let output = wearing(&worn, predict).chunk(rows, 0); // rows × [jobs, channels, h, w]
    let stepped = |(index, job): (i64, &&mut Job)| {
        let row = |row: usize| output[row].narrow(0, index, 1); // [1, channels, h, w]
        job.stepped(job.guidance().combine(row))
    };
    Ok((0..).zip(jobs).map(stepped).collect())
}
