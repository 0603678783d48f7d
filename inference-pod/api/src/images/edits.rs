//! `POST /v1/images/edits`: a picture and what shall become of it, sent as a form or as JSON.
//! Knows both forms and their rules; decodes no pixel, and fetches nothing.

mod file;
mod form;
mod variations;
mod way;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::file::ImageReference;
pub use self::file::{PictureFile, PictureFormat};
use self::form::Form;
pub use self::variations::{VARIATIONS_PATH, VariationRequest};
pub use self::way::EditWay;
use super::{
    ControlFields, Generation, GenerationRequest, Strength, check_guidance, invalid_value, refuse, unsupported,
};
use crate::engine::{ModelDefaults, ModelLimits};
use crate::error::ApiError;

pub const EDITS_PATH: &str = "/v1/images/edits";
/// Bytes that a client may send.
pub const MAX_EDIT_BODY: u64 = 8 << 20;
/// Bytes that a pod reads: what a client sent as a form comes from the gateway as JSON, a third longer.
pub const MAX_FORWARDED_EDIT_BODY: u64 = 12 << 20;
/// Of the picture that is sent, once it is decoded: 4096 x 4096.
pub const MAX_PICTURE_PIXELS: u64 = 1 << 24;
/// What is said of a second one.
const ONE_PICTURE: &str = "send one picture: the models here take neither more nor fewer; lay several out in one";

/// A request, whichever way it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct EditRequest {
    /// What an edit shares with a picture from nothing.
    pub generation: GenerationRequest,
    /// Extension, for models that edit by an instruction: how much the result shall look like the picture.
    pub image_guidance_scale: Option<f32>,
    /// Extension, for all others: how far the picture is taken back to noise.
    pub strength: Option<Strength>,
    /// For models with a `ControlNet`, which take the picture as what steers.
    pub control: ControlFields,
    pub picture: PictureFile,
    /// A PNG as large as the picture, transparent where that shall be drawn anew.
    pub mask: Option<PictureFile>,
}

/// The fields that `generations` does not have.
#[derive(Deserialize)]
struct Extra {
    images: Option<Vec<ImageReference>>,
    mask: Option<ImageReference>,
    image_guidance_scale: Option<f32>,
    strength: Option<Strength>,
    control_scale: Option<f32>,
    control_start: Option<f64>,
    control_end: Option<f64>,
    input_fidelity: Option<InputFidelity>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InputFidelity {
    Low,
    High,
}

impl EditRequest {
    /// Reads a whole body. The error names the field.
    pub async fn read(content_type: &str, body: Bytes) -> Result<Self, ApiError> {
        Self::from_form(form::read(content_type, body, "prompt and images").await?)
    }

    fn from_form(form: Form) -> Result<Self, ApiError> {
        let Form { mut fields, picture: sent, mask: sent_mask } = form;
        let own = ["images", "mask", "image_guidance_scale", "strength", "input_fidelity"];
        let own = own.iter().chain(&ControlFields::NAMES);
        let extra: Map<_, _> = own.filter_map(|key| fields.remove_entry(*key)).collect();
        let extra: Extra = serde_path_to_error::deserialize(Value::Object(extra)).map_err(|error| refuse(&error))?;
        let Extra {
            images,
            mask,
            image_guidance_scale,
            strength,
            control_scale,
            control_start,
            control_end,
            input_fidelity,
        } = extra;
        let control = ControlFields { control_scale, control_start, control_end };
        if input_fidelity == Some(InputFidelity::High) {
            let message = "input_fidelity is not supported; use strength, or image_guidance_scale with models that \
                           edit by an instruction";
            return Err(unsupported("input_fidelity", message));
        }
        let picture = match (sent, images) {
            (Some(file), None) => file,
            (None, Some(images)) => only_picture(images)?,
            (Some(_), Some(_)) => return Err(invalid_value("images", "send image or images, not both")),
            (None, None) => return Err(missing()),
        };
        let mask = match mask {
            Some(mask) => mask.read("mask")?,
            None => sent_mask,
        };
        let generation = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| refuse(&error))?;
        Ok(Self { generation, image_guidance_scale, strength, control, picture, mask })
    }

    /// JSON for a pod, which reads back as this request.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Self { generation, image_guidance_scale, strength, control, picture, mask } = self;
        let mut json = serde_json::to_value(generation)?;
        json["images"] = json!([{"image_url": picture.to_data_url()}]);
        if let Some(scale) = image_guidance_scale {
            json["image_guidance_scale"] = json!(scale);
        }
        if let Some(strength) = strength {
            json["strength"] = json!(strength);
        }
        if let Some(mask) = mask {
            json["mask"] = json!({"image_url": mask.to_data_url()});
        }
        if let (Value::Object(json), Value::Object(control)) = (&mut json, serde_json::to_value(control)?) {
            json.extend(control);
        }
        serde_json::to_vec(&json)
    }

    /// Checks what does not depend on a model.
    pub fn check(&self) -> Result<(), ApiError> {
        self.generation.check()?;
        self.check_pictures()
    }

    fn check_pictures(&self) -> Result<(), ApiError> {
        if self.mask.as_ref().is_some_and(|mask| mask.format != PictureFormat::Png) {
            let message = "the mask is no PNG file: send one that is transparent where the picture shall change";
            return Err(ApiError::invalid("mask", "invalid_image", message));
        }
        self.control.check()?;
        check_guidance("image_guidance_scale", self.image_guidance_scale)
    }

    /// What this request means for one model.
    pub fn resolve(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        self.check()?;
        self.generation.resolve(defaults, limits)
    }
}

fn only_picture(images: Vec<ImageReference>) -> Result<PictureFile, ApiError> {
    let mut images = images.into_iter();
    let (Some(image), None) = (images.next(), images.next()) else {
        return Err(invalid_value("images", ONE_PICTURE));
    };
    image.read("images[0]")?.ok_or_else(missing)
}

fn missing() -> ApiError {
    let message = "image is missing; send the picture that shall be edited as the form's file image, \
                   or as JSON: {\"images\": [{\"image_url\": \"data:image/png;base64,…\"}]}";
    ApiError::invalid("image", "missing_image", message)
}

#[cfg(test)]
mod tests;
