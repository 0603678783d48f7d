//! How far a picture has come, as a safetensors file of f32, and back.
//! Checks what it reads, for it comes from another process; does not know which request or checkpoint it is of.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use tch::{Device, Tensor};

use super::guard::failed;
use super::job::{Job, Progress};
use super::pixels::all_finite;
use crate::pipeline::PipelineError;
use crate::torch::sampler::history::History;
use crate::torch::sampler::noise::Noise;

const LATENTS: &str = "latents";
const BEFORE: &str = "before";
/// The model's outputs that the solver remembers, `output.0` the oldest.
const OUTPUT: &str = "output.";
/// Of the highest order of a solver.
const MAX_OUTPUTS: usize = 3;
const STEP: &str = "step";
const SEED: &str = "seed";
const DRAWS: &str = "draws";

pub(super) fn write(progress: &Progress) -> Result<Vec<u8>, PipelineError> {
    let Progress { step, latents, history: History { outputs, before, noise: Noise { seed, draws } } } = progress;
    let mut tensors = vec![Stored::of(LATENTS.into(), latents)?];
    for (index, output) in outputs.iter().enumerate() {
        tensors.push(Stored::of(format!("{OUTPUT}{index}"), output)?);
    }
    if let Some(before) = before {
        tensors.push(Stored::of(BEFORE.into(), before)?);
    }
    let numbers = [(STEP, *step as u64), (SEED, *seed), (DRAWS, *draws)];
    let numbers: HashMap<_, _> = numbers.map(|(name, value)| (name.to_owned(), value.to_string())).into();
    let views: Result<Vec<_>, _> = tensors.iter().map(Stored::view).collect();
    let written = views.and_then(|views| serialize(views, Some(numbers)));
    written.map_err(|error| failed("export a job", error))
}

/// Where a job of the same request can go on. `job` has taken no step here.
pub(super) fn read(bytes: &[u8], job: &Job, seed: u64) -> Result<Progress, PipelineError> {
    let unreadable = |error| refuse(&format!("not a safetensors file: {error}"));
    let numbers = SafeTensors::read_metadata(bytes).map_err(unreadable)?.1;
    let numbers = numbers.metadata().as_ref().ok_or_else(|| refuse("it has no metadata"))?;
    let number = |name: &str| numbers.get(name).and_then(|text| text.parse::<u64>().ok());
    let number = |name: &str| number(name).ok_or_else(|| refuse(&format!("its {name} is not a number")));
    let (step, noise) = (number(STEP)?, Noise { seed: number(SEED)?, draws: number(DRAWS)? });
    if step >= job.steps() as u64 {
        return Err(refuse(&format!("it is at step {step} of {}", job.steps())));
    }
    // A step draws once at most.
    if noise.seed != seed || noise.draws > job.progress().history.noise.draws + step {
        return Err(refuse("its random numbers are not those of the request"));
    }
    let step = step as usize;
    let stored = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let tensor = |name: &str| stored.tensor(name).ok().map(|view| tensor(name, &view, job.latents())).transpose();
    let latents = tensor(LATENTS)?.ok_or_else(|| refuse("it has no latents"))?;
    let before = tensor(BEFORE)?;
    let outputs = (0..MAX_OUTPUTS).map_while(|index| tensor(&format!("{OUTPUT}{index}")).transpose());
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    // A solver looks back no further than its steps, and corrects by what it remembers.
    if outputs.len() > step || (before.is_some() && outputs.is_empty()) {
        return Err(refuse("its history is not that of a run"));
    }
    Ok(Progress { step, latents, history: History { outputs, before, noise } })
}

struct Stored {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn of(name: String, tensor: &Tensor) -> Result<Self, PipelineError> {
        let shape = tensor.size().into_iter().map(|side| side as usize).collect();
        let values = tensor.to_device(Device::Cpu).flatten(0, -1).contiguous();
        let values = Vec::<f32>::try_from(values).map_err(|error| failed("export a job", error))?;
        Ok(Self { name, shape, bytes: values.into_iter().flat_map(f32::to_le_bytes).collect() })
    }

    fn view(&self) -> Result<(&str, TensorView<'_>), safetensors::SafeTensorError> {
        let view = TensorView::new(Dtype::F32, self.shape.clone(), &self.bytes)?;
        Ok((&self.name, view))
    }
}

/// Of the shape and on the device of `like`.
fn tensor(name: &str, view: &TensorView, like: &Tensor) -> Result<Tensor, PipelineError> {
    let shape = like.size();
    if view.dtype() != Dtype::F32 || !shape.iter().map(|side| *side as usize).eq(view.shape().iter().copied()) {
        let found = (view.dtype(), view.shape());
        return Err(refuse(&format!("its {name} are {found:?}, and those of the request F32 of {shape:?}")));
    }
    let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let read = Tensor::from_slice(&values.collect::<Vec<_>>()).view(&shape[..]).to_device(like.device());
    all_finite(&read).map_err(|_| refuse(&format!("its {name} have values that are not numbers")))?;
    Ok(read)
}

fn refuse(why: &str) -> PipelineError {
    PipelineError::Snapshot(why.to_owned())
}
