//! `POST /v1/images/variations`: a picture drawn on without words, so that it becomes another one of its kind.
//! An edit with an empty prompt; knows only what differs from one.

use bytes::Bytes;
use serde_json::Value;

use super::{EditRequest, PictureFile, PictureFormat, form, unsupported};
use crate::engine::{ModelDefaults, ModelLimits};
use crate::error::ApiError;
use crate::images::{Generation, Strength};

pub const VARIATIONS_PATH: &str = "/v1/images/variations";
/// OpenAI's own bound.
const MAX_PICTURE_BYTES: usize = 4 << 20;
/// There are no words to be guided by.
const GUIDANCE: f32 = 1.0;

/// A request, as an edit in which everything that a variation decides is said.
#[derive(Clone, Debug, PartialEq)]
pub struct VariationRequest(EditRequest);

impl VariationRequest {
    /// Reads a whole body: OpenAI's form, or JSON as for an edit. The error names the field.
    pub async fn read(content_type: &str, body: Bytes) -> Result<Self, ApiError> {
        let mut form = form::read(content_type, body, "images").await?;
        match form.fields.get("prompt").map(Value::as_str) {
            None | Some(Some("")) => form.fields.insert("prompt".to_owned(), "".into()),
            Some(_) => return Err(unsupported("prompt", "a variation has no prompt: send it to /v1/images/edits")),
        };
        let mut edit = EditRequest::from_form(form)?;
        if edit.mask.is_some() {
            return Err(unsupported("mask", "a variation has no mask: send it to /v1/images/edits"));
        }
        edit.strength.get_or_insert(Strength::OF_VARIATION);
        edit.generation.guidance_scale.get_or_insert(GUIDANCE);
        Ok(Self(edit))
    }

    /// Checks what does not depend on a model.
    pub fn check(&self) -> Result<(), ApiError> {
        self.0.generation.check_all_but_emptiness()?;
        self.0.check_pictures()?;
        check_picture(&self.0.picture)
    }

    pub fn resolve(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        self.check()?;
        self.0.generation.resolve_checked(defaults, limits)
    }

    pub fn edit(&self) -> &EditRequest {
        &self.0
    }

    pub fn edit_mut(&mut self) -> &mut EditRequest {
        &mut self.0
    }
}

fn check_picture(picture: &PictureFile) -> Result<(), ApiError> {
    let refused = |message: &str| Err(ApiError::invalid("image", "invalid_image", message));
    if picture.bytes.len() >= MAX_PICTURE_BYTES {
        return refused("the picture has 4 MB or more: send a smaller one");
    }
    match (picture.format, png_sides(&picture.bytes)) {
        (PictureFormat::Png, Some((width, height))) if width == height => Ok(()),
        (PictureFormat::Png, Some((width, height))) => {
            refused(&format!("the picture is {width}x{height}: a variation takes a square one, so cut or pad it"))
        }
        (PictureFormat::Png, None) => refused("the picture ends before it says how large it is"),
        (PictureFormat::Jpeg | PictureFormat::Webp, _) => refused("a variation takes a PNG file: convert the picture"),
    }
}

/// Width and height stand behind the signature, the first chunk's length and its name.
fn png_sides(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |from: usize| bytes.get(from..from + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some((side(16)?, side(20)?))
}
