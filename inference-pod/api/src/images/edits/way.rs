//! Which of the ways to change a picture a request takes, with the models that it names.
//! Knows what clients sent and what checkpoints can do; knows no pod.

use super::{EditRequest, unsupported};
use crate::error::ApiError;
use crate::images::{Generation, Strength, Task, refusal_of};

/// diffusers 0.42.1, `StableDiffusionInstructPix2PixPipeline`.
const DEFAULT_IMAGE_GUIDANCE: f32 = 1.5;

/// Every field decided. The picture, and the mask of `Inpaint`, are the request's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EditWay {
    Instruct { image_guidance_scale: f32 },
    Control,
    ImageToImage { strength: Strength },
    Inpaint { strength: Strength },
}

impl EditRequest {
    /// For a model that can do `tasks`. The error names the field that it can't do anything with.
    pub fn way(&self, tasks: &[Task]) -> Result<EditWay, ApiError> {
        let wanted = match (self.mask.is_some(), self.image_guidance_scale.is_some(), self.strength.is_some()) {
            (true, ..) => Task::Inpaint,
            (false, true, _) => Task::Instruct,
            (false, false, false) if tasks.contains(&Task::Instruct) => Task::Instruct,
            (false, false, false) if tasks.contains(&Task::Control) => Task::Control,
            (false, false, true | false) => Task::ImageToImage,
        };
        let param = match wanted {
            Task::Inpaint => "mask",
            Task::Instruct => "image_guidance_scale",
            Task::ImageToImage if self.strength.is_some() => "strength",
            Task::ImageToImage | Task::Generate | Task::Control => "image",
        };
        if let Some(refusal) = refusal_of(tasks, wanted) {
            return Err(unsupported(param, refusal));
        }
        match (wanted, self.strength, self.image_guidance_scale) {
            (Task::Instruct, None, scale) => {
                Ok(EditWay::Instruct { image_guidance_scale: scale.unwrap_or(DEFAULT_IMAGE_GUIDANCE) })
            }
            (Task::Instruct, Some(_), _) => {
                Err(unsupported("strength", "use strength or image_guidance_scale, not both"))
            }
            (_, _, Some(_)) => {
                let message = "image_guidance_scale is for models that edit by an instruction: use strength";
                Err(unsupported("image_guidance_scale", message))
            }
            (Task::Control, _, None) => Ok(EditWay::Control),
            (Task::Inpaint, strength, None) => {
                Ok(EditWay::Inpaint { strength: strength.unwrap_or(Strength::OF_INPAINTING) })
            }
            (Task::ImageToImage | Task::Generate, strength, None) => {
                Ok(EditWay::ImageToImage { strength: strength.unwrap_or(Strength::OF_IMAGE_TO_IMAGE) })
            }
        }
    }
}

impl EditWay {
    pub fn strength(self) -> Option<Strength> {
        match self {
            Self::Instruct { .. } | Self::Control => None,
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
