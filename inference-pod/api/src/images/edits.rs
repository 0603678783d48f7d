//! `POST /v1/images/edits`: a picture and what shall become of it, sent as a form or as JSON.
//! Knows both forms and their rules; decodes no pixel, and fetches nothing.

mod form;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Generation, GenerationRequest, check_guidance, invalid_value, is_array, refuse};
use crate::engine::{ModelDefaults, ModelLimits};
use crate::error::ApiError;

pub const EDITS_PATH: &str = "/v1/images/edits";
/// Bytes that a client may send.
pub const MAX_EDIT_BODY: u64 = 8 << 20;
/// Bytes that a pod reads: what a client sent as a form comes from the gateway as JSON, a third longer.
pub const MAX_FORWARDED_EDIT_BODY: u64 = 12 << 20;
/// Of the picture that is sent, once it is decoded: 4096 x 4096.
pub const MAX_PICTURE_PIXELS: u64 = 1 << 24;
/// diffusers 0.42.1, `StableDiffusionInstructPix2PixPipeline`.
const DEFAULT_IMAGE_GUIDANCE: f32 = 1.5;

/// A request, whichever way it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct EditRequest {
    /// What an edit shares with a picture from nothing.
    pub generation: GenerationRequest,
    /// Extension: how much the result shall look like the picture that was sent.
    pub image_guidance_scale: Option<f32>,
    pub picture: PictureFile,
}

/// A picture as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct PictureFile {
    pub format: PictureFormat,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    Png,
    Jpeg,
    Webp,
}

/// The fields that `generations` does not have.
#[derive(Deserialize)]
struct Extra {
    images: Option<Vec<ImageReference>>,
    mask: Option<Value>,
    image_guidance_scale: Option<f32>,
    input_fidelity: Option<InputFidelity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageReference {
    image_url: Option<String>,
    file_id: Option<String>,
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
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Self::from_json(&body);
        }
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            let form = form::read(content_type, body).await?;
            return Self::from_fields(form.fields, form.picture);
        }
        let found: String = content_type.chars().take(100).collect();
        let message = format!("content-type '{found}' is not supported; send multipart/form-data or application/json");
        Err(ApiError { message, ..ApiError::unsupported_media_type(&found) })
    }

    fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        if is_array(body) {
            return Err(ApiError::malformed("the body must be a JSON object with prompt and images"));
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let fields: Map<String, Value> = serde_path_to_error::deserialize(&mut reader).map_err(|e| refuse(&e))?;
        reader.end().map_err(|error| ApiError::malformed(format!("the body is not valid JSON: {error}")))?;
        Self::from_fields(fields, None)
    }

    fn from_fields(mut fields: Map<String, Value>, sent: Option<PictureFile>) -> Result<Self, ApiError> {
        let own = ["images", "mask", "image_guidance_scale", "input_fidelity"];
        let extra: Map<_, _> = own.iter().filter_map(|key| fields.remove_entry(*key)).collect();
        let extra: Extra = serde_path_to_error::deserialize(Value::Object(extra)).map_err(|error| refuse(&error))?;
        let Extra { images, mask, image_guidance_scale, input_fidelity } = extra;
        if mask.is_some() {
            return Err(unsupported("mask", "masks are not supported yet; leave mask out"));
        }
        if input_fidelity == Some(InputFidelity::High) {
            return Err(unsupported("input_fidelity", "input_fidelity is not supported; use image_guidance_scale"));
        }
        let picture = match (sent, images) {
            (Some(file), None) => file,
            (None, Some(images)) => only_picture(images)?,
            (Some(_), Some(_)) => return Err(invalid_value("images", "send image or images, not both")),
            (None, None) => return Err(missing()),
        };
        let generation = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| refuse(&error))?;
        Ok(Self { generation, image_guidance_scale, picture })
    }

    /// JSON for a pod, which reads back as this request.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Self { generation, image_guidance_scale, picture } = self;
        let mut json = serde_json::to_value(generation)?;
        json["images"] = json!([{"image_url": picture.to_data_url()}]);
        if let Some(scale) = image_guidance_scale {
            json["image_guidance_scale"] = json!(scale);
        }
        serde_json::to_vec(&json)
    }

    /// Checks what does not depend on a model.
    pub fn check(&self) -> Result<(), ApiError> {
        self.generation.check()?;
        check_guidance("image_guidance_scale", self.image_guidance_scale)
    }

    /// What this request means for one model.
    pub fn resolve(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        self.check()?;
        self.generation.resolve(defaults, limits)
    }

    pub fn image_guidance_scale(&self) -> f32 {
        self.image_guidance_scale.unwrap_or(DEFAULT_IMAGE_GUIDANCE)
    }
}

impl PictureFile {
    /// What the bytes say that they are decides, not a file's name or a declared type.
    pub fn new(param: &str, bytes: Bytes) -> Result<Self, ApiError> {
        let format = match &bytes[..] {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => PictureFormat::Png,
            [0xff, 0xd8, 0xff, ..] => PictureFormat::Jpeg,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => PictureFormat::Webp,
            _ => return Err(ApiError::invalid(param, "invalid_image", "the picture is not a PNG, JPEG or WebP file")),
        };
        Ok(Self { format, bytes })
    }

    fn to_data_url(&self) -> String {
        let kind = match self.format {
            PictureFormat::Png => "png",
            PictureFormat::Jpeg => "jpeg",
            PictureFormat::Webp => "webp",
        };
        let mut url = format!("data:image/{kind};base64,");
        STANDARD.encode_string(&self.bytes, &mut url);
        url
    }
}

/// A log line has no room for a picture.
impl std::fmt::Debug for PictureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PictureFile({:?}, {} bytes)", self.format, self.bytes.len())
    }
}

fn only_picture(images: Vec<ImageReference>) -> Result<PictureFile, ApiError> {
    let mut images = images.into_iter();
    let (Some(image), None) = (images.next(), images.next()) else {
        return Err(invalid_value("images", "send one picture: more or fewer are not supported"));
    };
    let ImageReference { image_url, file_id } = image;
    if file_id.is_some() {
        return Err(unsupported("images[0].file_id", "files are not stored here; send the picture as a data: URL"));
    }
    let url = image_url.ok_or_else(missing)?;
    from_data_url("images[0].image_url", &url)
}

fn from_data_url(param: &str, url: &str) -> Result<PictureFile, ApiError> {
    let Some(data) = url.strip_prefix("data:") else {
        let message = "no address is fetched for a request: send the picture itself, as data:image/png;base64,…";
        return Err(unsupported(param, message));
    };
    let (_, encoded) = data
        .split_once(";base64,")
        .ok_or_else(|| invalid_value(param, "a data: URL must be like data:image/png;base64,…"))?;
    let bytes = STANDARD.decode(encoded).map_err(|error| invalid_value(param, format!("it is not base64: {error}")))?;
    PictureFile::new(param, bytes.into())
}

fn missing() -> ApiError {
    let message = "image is missing; send the picture that shall be edited as the form's file image, \
                   or as JSON: {\"images\": [{\"image_url\": \"data:image/png;base64,…\"}]}";
    ApiError::invalid("image", "missing_image", message)
}

fn unsupported(param: &str, message: &str) -> ApiError {
    ApiError::invalid(param, "unsupported_value", message)
}

#[cfg(test)]
mod tests;
