//! What becomes of drawn pictures: files, in base64, and what is said about them.
//! Knows files and headers; does not know whether they go out one by one or together.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_api::engine::ModelId;
use easel_api::error::ApiError;
use easel_api::images::{Generation, Image, ImagesResponse, InputTokens, Output, Usage};

use crate::engine::{Drawn, Timings};
use crate::finishing::Finishing;
use crate::picture_file::{self, FileError};
use crate::pipeline::{Picture, PictureRequest, PipelineError};
use crate::png::Provenance;
use crate::seal::SealError;
use crate::upscale::{Repeat, Upscale};

/// What the model does not know of the prompt.
const WARNING_HEADER: &str = "x-easel-warning";
const DIGEST_HEADER: &str = "x-easel-model-digest";

/// How the pictures of one request are written.
#[derive(Clone)]
pub(super) struct Rendering {
    pub(super) model: ModelId,
    pub(super) generation: Generation,
    pub(super) output: Output,
    pub(super) finishing: Finishing,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("failed to take the background away")]
    CutOut(#[source] PipelineError),
    #[error("failed to make the picture larger")]
    Upscale(#[source] PipelineError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Rendering {
    /// The file of a finished picture, in base64.
    pub(super) fn finished(
        &self,
        request: &PictureRequest,
        picture: &Picture,
        digest: &str,
    ) -> Result<String, RenderError> {
        let Finishing { cut_out, upscale, seal: _ } = &self.finishing;
        let picture = self.sized(picture, upscale.as_deref())?;
        let cut_out = cut_out.as_ref().filter(|_| self.output.is_transparent());
        let mask = cut_out.map(|cut_out| cut_out.mask(&picture)).transpose().map_err(RenderError::CutOut)?;
        let provenance = Provenance { model: self.model.as_str(), digest };
        let bytes = picture_file::encode(&picture, mask.as_ref(), self.output.encoding, request, &provenance)?;
        self.sealed(bytes)
    }

    /// That of a preview, which keeps its background: looking for an edge in it costs as much as in a picture, and finds
    /// another one each time. Nor is it worth the network that makes pictures larger.
    pub(super) fn preview(
        &self,
        request: &PictureRequest,
        picture: &Picture,
        digest: &str,
    ) -> Result<String, RenderError> {
        let provenance = Provenance { model: self.model.as_str(), digest };
        let picture = self.sized(picture, Some(&Repeat))?;
        let bytes = picture_file::encode(&picture, None, self.output.encoding, request, &provenance)?;
        self.sealed(bytes)
    }

    /// In base64, and signed where the pod signs.
    fn sealed(&self, file: Vec<u8>) -> Result<String, RenderError> {
        let file = match &self.finishing.seal {
            Some(seal) => seal.seal(file, self.output.format())?,
            None => file,
        };
        Ok(STANDARD.encode(file))
    }

    /// As large as the request says.
    fn sized<'a>(&self, picture: &'a Picture, by: Option<&dyn Upscale>) -> Result<Cow<'a, Picture>, RenderError> {
        match by {
            Some(upscale) if self.generation.picture_size != picture.size => {
                upscale.upscale(picture).map(Cow::Owned).map_err(RenderError::Upscale)
            }
            Some(_) | None => Ok(Cow::Borrowed(picture)),
        }
    }

    pub(super) fn all(&self, drawn: &Drawn) -> Result<ImagesResponse, RenderError> {
        let image = |(request, picture): &(PictureRequest, Picture)| {
            let b64_json = self.finished(request, picture, &drawn.digest)?;
            Ok(Image { b64_json, seed: request.seed })
        };
        Ok(ImagesResponse {
            created: now(),
            data: drawn.pictures.iter().map(image).collect::<Result<_, RenderError>>()?,
            background: self.output.background,
            output_format: self.output.format(),
            size: self.generation.picture_size,
            quality: self.generation.quality,
            usage: usage(drawn.text_tokens.into(), drawn.picture_tokens, drawn.image_tokens),
        })
    }
}

/// Takes as long as a step, so it has a thread of its own.
pub(super) async fn apart<T: Send + 'static>(
    write: impl FnOnce() -> Result<T, RenderError> + Send + 'static,
) -> Result<T, ApiError> {
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|_| ApiError::internal("failed to write the pictures"))?.map_err(|error| {
        tracing::error!(error = crate::chain(&error), "failed to write a picture");
        ApiError::internal(error.to_string())
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn usage(text_tokens: u64, image_tokens: u64, output_tokens: u64) -> Usage {
    let input_tokens = text_tokens + image_tokens;
    Usage {
        total_tokens: input_tokens + output_tokens,
        input_tokens,
        output_tokens,
        input_tokens_details: InputTokens { text_tokens, image_tokens },
    }
}

pub(super) fn headers(drawn: &Drawn) -> Result<HeaderMap, ApiError> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ApiError::internal("failed to write a header"));
    let mut headers = HeaderMap::new();
    headers.insert(DIGEST_HEADER, value(&drawn.digest)?);
    if let Some(warning) = &drawn.warning {
        headers.insert(WARNING_HEADER, value(warning)?);
    }
    headers.insert("server-timing", value(&server_timing(&drawn.timings))?);
    Ok(headers)
}

/// Durations in milliseconds, as the Server Timing document has them.
fn server_timing(timings: &Timings) -> String {
    let Timings { queue, encode, denoise, decode } = timings;
    let parts = [("queue", queue), ("encode", encode), ("denoise", denoise), ("decode", decode)];
    parts.map(|(name, time)| format!("{name};dur={:.1}", time.as_secs_f64() * 1000.0)).join(", ")
}
