//! Which of the ways to change a picture a request takes, with the models that it names.
//! Knows what clients sent and what checkpoints can do; knows no pod.

use super::{EditRequest, unsupported};
use crate::error::ApiError;
use crate::images::{ControlOptions, Generation, Strength, Task, refusal_of};

/// diffusers 0.42.1, `StableDiffusionInstructPix2PixPipeline`.
const DEFAULT_IMAGE_GUIDANCE: f32 = 1.5;

/// Every field decided. The picture, and the mask of `Inpaint`, are the request's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EditWay {
    Instruct { image_guidance_scale: f32 },
    Control(ControlOptions),
    ImageToImage { strength: Strength },
    Inpaint { strength: Strength },
}

impl EditRequest {
    /// For a model that can do `tasks`. The error names the field that it can't do anything with.
    pub fn way(&self, tasks: &[Task]) -> Result<EditWay, ApiError> {
        let (wanted, param) = self.wanted(tasks);
        if let Some(refusal) = refusal_of(tasks, wanted) {
            return Err(unsupported(param, refusal));
        }
        self.check_nothing_is_for_another(wanted)?;
        let Self { image_guidance_scale, strength, control, .. } = self;
        Ok(match wanted {
            Task::Instruct => {
                EditWay::Instruct { image_guidance_scale: image_guidance_scale.unwrap_or(DEFAULT_IMAGE_GUIDANCE) }
            }
            Task::Control => EditWay::Control(control.options()),
            Task::Inpaint => EditWay::Inpaint { strength: strength.unwrap_or(Strength::OF_INPAINTING) },
            Task::ImageToImage | Task::Generate => {
                EditWay::ImageToImage { strength: strength.unwrap_or(Strength::OF_IMAGE_TO_IMAGE) }
            }
        })
    }

    /// What the fields ask for, or where they leave it open the model is for; and the field that says it.
    fn wanted(&self, tasks: &[Task]) -> (Task, &'static str) {
        if self.mask.is_some() {
            (Task::Inpaint, "mask")
        } else if let Some(name) = self.control.named() {
            (Task::Control, name)
        } else if self.image_guidance_scale.is_some() {
            (Task::Instruct, "image_guidance_scale")
        } else if self.strength.is_some() {
            (Task::ImageToImage, "strength")
        } else {
            let own = [Task::Instruct, Task::Control].into_iter().find(|task| tasks.contains(task));
            (own.unwrap_or(Task::ImageToImage), "image")
        }
    }

    fn check_nothing_is_for_another(&self, wanted: Task) -> Result<(), ApiError> {
        if wanted == Task::Instruct && self.strength.is_some() {
            return Err(unsupported("strength", "use strength or image_guidance_scale, not both"));
        }
        if wanted == Task::Control && self.strength.is_some() {
            return Err(unsupported("strength", "use strength or control_scale, not both"));
        }
        if wanted != Task::Instruct && self.image_guidance_scale.is_some() {
            let message = "image_guidance_scale is for models that edit by an instruction: use strength, or control_scale \
                           with models that draw as a picture steers";
            return Err(unsupported("image_guidance_scale", message));
        }
        if wanted == Task::Control { Ok(()) } else { self.control.refuse() }
    }
}

impl EditWay {
    pub fn strength(self) -> Option<Strength> {
        match self {
            Self::Instruct { .. } | Self::Control(_) => None,
            Self::ImageToImage { strength } | Self::Inpaint { strength } => Some(strength),
        }
    }

    /// How often the model is called for each picture. Refuses a strength that leaves it nothing to do.
    pub fn model_calls(self, generation: &Generation) -> Result<u32, ApiError> {
        let calls = generation.model_calls(self.strength());
        match self.strength() {
            Some(strength) if calls == 0 => {
                let message =
                    format!("strength {strength} leaves none of {} steps: raise one of both", generation.steps);
                Err(ApiError::invalid("strength", "invalid_value", message))
            }
            Some(_) | None => Ok(calls),
        }
    }
}
