//! What `scheduler/` of a model trained by flow matching says: how far its noise levels are shifted.
//! Refuses by name what would change them in another way.

use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use serde::Deserialize;

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::sampler::flow_match_euler::FlowMatchEuler;
use crate::torch::sampler::{Sampler, SamplerError};

const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FlowSchedule {
    shift: Shift,
    num_train_timesteps: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shift {
    /// Of every picture.
    Fixed(f64),
    /// `use_dynamic_shifting`: the more patches, the more noise at every time.
    BySize { kind: TimeShift, begin: (f64, f64), end: (f64, f64) },
}

/// `time_shift_type`: what `mu` means.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum TimeShift {
    Exponential,
    Linear,
}

/// Which levels a pipeline asks for, before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Levels {
    /// From the first level that was trained to the last.
    Trained,
    /// From 1 to one step's length above 0.
    Even,
}

impl FlowSchedule {
    pub(super) fn read(checkpoint: &Files) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "scheduler/scheduler_config.json")?;
        let class: String = config.need("_class_name")?;
        if class != CLASS {
            return Err(config.unsupported("_class_name", &class));
        }
        let fixed = config.take_or("shift", 1.0)?;
        let by_size = Shift::BySize {
            kind: config.take_or("time_shift_type", TimeShift::Exponential)?,
            begin: (config.take_or("base_image_seq_len", 256.0)?, config.take_or("base_shift", 0.5)?),
            end: (config.take_or("max_image_seq_len", 4096.0)?, config.take_or("max_shift", 1.15)?),
        };
        let is_by_size = config.take_or("use_dynamic_shifting", false)?;
        let read = Self {
            shift: if is_by_size { by_size } else { Shift::Fixed(fixed) },
            num_train_timesteps: config.take_or("num_train_timesteps", 1000)?,
        };
        config.finish(&[])?;
        Ok(read)
    }

    /// For a picture of so many patches.
    pub(super) fn sampler(
        self,
        kind: SamplerKind,
        steps: u32,
        levels: Levels,
        patches: i64,
    ) -> Result<Sampler, SamplerError> {
        let trained = self.num_train_timesteps;
        Sampler::for_flow(kind, || match (levels, self.shift) {
            (Levels::Trained, Shift::Fixed(shift)) => FlowMatchEuler::new(shift, steps, trained),
            (Levels::Trained, Shift::BySize { .. }) => {
                let levels = trained_levels(steps, trained)?;
                FlowMatchEuler::with_levels(&levels, self.shift_of(patches), trained)
            }
            (Levels::Even, _) => FlowMatchEuler::with_levels(&even_levels(steps), self.shift_of(patches), trained),
        })
    }

    /// diffusers 0.42.1, `pipeline_flux.py`, `calculate_shift`, and the scheduler's `time_shift`, whose `mu` is the
    /// shift or its logarithm.
    fn shift_of(self, patches: i64) -> f64 {
        match self.shift {
            Shift::Fixed(shift) => shift,
            Shift::BySize { kind, begin, end } => {
                let slope = (end.1 - begin.1) / (end.0 - begin.0);
                let mu = patches as f64 * slope + (begin.1 - slope * begin.0);
                match kind {
                    TimeShift::Exponential => mu.exp(),
                    TimeShift::Linear => mu,
                }
            }
        }
    }
}

/// diffusers 0.42.1, `scheduling_flow_match_euler_discrete.py`, `set_timesteps` without `sigmas`.
fn trained_levels(steps: u32, trained: usize) -> Result<Vec<f32>, SamplerError> {
    if steps as usize > trained {
        return Err(SamplerError::TooManySteps { steps, trained });
    }
    let last = 1.0 / trained as f64;
    let ratio = (last - 1.0) / f64::from(steps.max(2) - 1);
    Ok((0..steps).map(|index| (1.0 + f64::from(index) * ratio) as f32).collect())
}

/// diffusers 0.42.1, `pipeline_flux.py`, `__call__`.
fn even_levels(steps: u32) -> Vec<f32> {
    let last = 1.0 / f64::from(steps.max(1));
    let ratio = (last - 1.0) / f64::from(steps.max(2) - 1);
    (0..steps).map(|index| (1.0 + f64::from(index) * ratio) as f32).collect()
}
