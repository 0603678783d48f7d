//! What `scheduler/` of a model trained by flow matching says: how far its noise levels are shifted.
//! Refuses by name what would change them in another way.

use easel_api::images::SamplerKind;
use easel_checkpoints::Files;

use crate::pipeline::LoadError;
use crate::torch::config::Config;
use crate::torch::sampler::flow_match_euler::FlowMatchEuler;
use crate::torch::sampler::{Sampler, SamplerError};

const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FlowSchedule {
    shift: f64,
    num_train_timesteps: usize,
}

impl FlowSchedule {
    pub(super) fn read(checkpoint: &Files) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, "scheduler/scheduler_config.json")?;
        let class: String = config.need("_class_name")?;
        if class != CLASS {
            return Err(config.unsupported("_class_name", &class));
        }
        let read = Self {
            shift: config.take_or("shift", 1.0)?,
            num_train_timesteps: config.take_or("num_train_timesteps", 1000)?,
        };
        // They belong to `use_dynamic_shifting`, which is refused.
        config.ignore(&["base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift", "time_shift_type"]);
        config.finish(&[])?;
        Ok(read)
    }

    pub(super) fn sampler(self, kind: SamplerKind, steps: u32) -> Result<Sampler, SamplerError> {
        Sampler::for_flow(kind, || FlowMatchEuler::new(self.shift, steps, self.num_train_timesteps))
    }
}
