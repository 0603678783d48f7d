//! Reads a body into the fields that JSON has, and of `multipart/form-data` the files.
//! Knows which fields are no text, for a form has nothing else (adapters are written as JSON); checks nothing else.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use multer::{Field, Multipart};
use serde_json::{Map, Value};

use super::{ONE_PICTURE, PictureFile};
use crate::error::ApiError;
use crate::images::{is_array, refuse};

const NUMBERS: [&str; 12] = [
    "n",
    "seed",
    "steps",
    "guidance_scale",
    "image_guidance_scale",
    "strength",
    "control_scale",
    "control_start",
    "control_end",
    "output_compression",
    "partial_images",
    "upscale",
];
/// No request has as many; each takes memory beside its bytes.
const MAX_PARTS: usize = 64;
const TRUTHS: [&str; 1] = ["stream"];
/// Two bytes of JSON can be a value of 32 in memory. A prompt may have commas, and adapters are few.
const MAX_VALUES: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Form {
    pub(super) fields: Map<String, Value>,
    pub(super) picture: Option<PictureFile>,
    pub(super) mask: Option<PictureFile>,
}

/// `wanted` is what the body must have, for the sentence that misses it.
pub(super) async fn read(content_type: &str, body: Bytes, wanted: &str) -> Result<Form, ApiError> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return from_json(&body, wanted);
    }
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        return from_parts(content_type, body).await;
    }
    let found: String = content_type.chars().take(100).collect();
    let message = format!("content-type '{found}' is not supported; send multipart/form-data or application/json");
    Err(ApiError { message, ..ApiError::unsupported_media_type(&found) })
}

fn from_json(body: &[u8], wanted: &str) -> Result<Form, ApiError> {
    if is_array(body) {
        return Err(ApiError::malformed(format!("the body must be a JSON object with {wanted}")));
    }
    if has_many_values(body) {
        return Err(ApiError::malformed(format!("the body has more than {MAX_VALUES} values")));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let fields = serde_path_to_error::deserialize(&mut reader).map_err(|error| refuse(&error))?;
    reader.end().map_err(|error| ApiError::malformed(format!("the body is not valid JSON: {error}")))?;
    Ok(Form { fields, ..Form::default() })
}

/// The body is here as a whole, so nothing in here waits.
async fn from_parts(content_type: &str, body: Bytes) -> Result<Form, ApiError> {
    let boundary = multer::parse_boundary(content_type).map_err(malformed)?;
    let body = stream::once(async move { Ok::<_, Infallible>(body) });
    let mut parts = Multipart::new(body, boundary);
    let mut form = Form::default();
    let mut count = 0;
    while let Some(part) = parts.next_field().await.map_err(malformed)? {
        count += 1;
        if count > MAX_PARTS {
            return Err(ApiError::malformed(format!("the form has more than {MAX_PARTS} parts")));
        }
        form.add(part).await?;
    }
    Ok(form)
}

impl Form {
    async fn add(&mut self, part: Field<'_>) -> Result<(), ApiError> {
        let Some(name) = part.name().map(ToOwned::to_owned) else {
            return Err(ApiError::malformed("a part of the form has no name"));
        };
        let bytes = part.bytes().await.map_err(malformed)?;
        // SDKs write the second for a list of one.
        if ["image", "image[]"].contains(&name.as_str()) {
            if self.picture.is_some() {
                return Err(ApiError::invalid("image", "invalid_value", ONE_PICTURE));
            }
            self.picture = Some(PictureFile::new("image", bytes)?);
            return Ok(());
        }
        if name == "mask" {
            if self.mask.is_some() {
                return Err(ApiError::invalid("mask", "invalid_value", "send one mask"));
            }
            self.mask = Some(PictureFile::new("mask", bytes)?);
            return Ok(());
        }
        let name: String = if name.chars().count() > 64 { name.chars().take(64).collect() } else { name };
        if self.fields.contains_key(&name) {
            return Err(ApiError::invalid(&name, "invalid_value", format!("{name} is in the form twice")));
        }
        let value = typed(&name, &bytes)?;
        self.fields.insert(name, value);
        Ok(())
    }
}

/// A comma is before every value but the first of its list. Those of texts count too.
fn has_many_values(json: &[u8]) -> bool {
    json.iter().filter(|byte| **byte == b',').nth(MAX_VALUES).is_some()
}

/// What does not read as the type that it should have stays text, and is refused as JSON of the wrong type would be.
fn typed(name: &str, bytes: &Bytes) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::invalid(name, "invalid_value", format!("{name} is not UTF-8 text")))?;
    let is_typed: fn(&Value) -> bool = match name {
        name if NUMBERS.contains(&name) => Value::is_number,
        name if TRUTHS.contains(&name) => Value::is_boolean,
        "adapters" => Value::is_array, // as JSON
        _ => return Ok(Value::String(text.to_owned())),
    };
    let value = if has_many_values(bytes) { None } else { serde_json::from_str(text.trim()).ok().filter(is_typed) };
    Ok(value.unwrap_or_else(|| Value::String(text.to_owned())))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn malformed(error: multer::Error) -> ApiError {
    ApiError::malformed(format!("the form can't be read: {error}"))
}
