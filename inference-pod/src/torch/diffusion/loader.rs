//! Makes a pipeline of a folder in the diffusers layout. Which family reads it is decided in `families`.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;

use super::guard::guarded;
use super::{Diffusion, ParkedDiffusion};
use crate::pipeline::{LoadError, Loader};
use crate::torch::device::Placement;
use crate::torch::families::{self, Loaded};
use crate::torch::lora::{Adapter, Layers};
use crate::vocabulary::Vocabulary;
use easel_checkpoints::Files;

/// Loads to one device, in one dtype.
#[derive(Clone, Copy, Debug)]
pub struct TorchLoader {
    placement: Placement,
}

impl TorchLoader {
    /// [`crate::torch::init`] must have run before, or `placement` can only be the CPU.
    pub fn new(placement: Placement) -> Self {
        Self { placement }
    }
}

impl Loader for TorchLoader {
    type Pipeline = Diffusion;

    fn load(&self, checkpoint: &Files) -> Result<Diffusion, LoadError> {
        guarded("compute", || Ok(load(checkpoint, self.placement))).unwrap_or_else(|error| {
            Err(LoadError::Failed { part: "the checkpoint".to_owned(), source: Box::new(error) })
        })
    }

    fn load_parked(&self, checkpoint: &Files) -> Result<ParkedDiffusion, LoadError> {
        let placement = self.placement.parked();
        Self { placement }.load(checkpoint).map(ParkedDiffusion)
    }

    /// A CPU's memory is the host's.
    fn has_host_tier(&self) -> bool {
        self.placement.device.is_cuda()
    }

    fn load_adapter(&self, files: &Files, layers: &Layers) -> Result<Adapter, LoadError> {
        guarded("compute", || Ok(Adapter::load(files, layers, self.placement)))
            .unwrap_or_else(|error| Err(LoadError::Failed { part: "the adapter".to_owned(), source: Box::new(error) }))
    }

    fn device(&self) -> String {
        self.placement.to_string()
    }
}

fn load(checkpoint: &Files, placement: Placement) -> Result<Diffusion, LoadError> {
    let vocabulary = Vocabulary::read(checkpoint)?;
    let Loaded { input, family, vae } = families::load(checkpoint, placement)?;
    let (colours, adapters, peak) = (OnceCell::new(), BTreeMap::new(), Cell::new(None));
    let tasks = input.tasks(vae.encodes());
    Ok(Diffusion { input, tasks, family, vae, vocabulary, placement, colours, adapters, peak })
}
