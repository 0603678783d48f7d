//! OpenAI's Images API: what clients send, what it means for one model, what they get back.
//! Parses at the edge: a [`Generation`] is always drawable within the model's limits.

mod adapters;
mod control;
mod edits;
mod output;
mod sampler;
mod stream;
mod strength;
mod task;

use serde::{Deserialize, Serialize};

use crate::ImageSize;
use crate::engine::{ModelDefaults, ModelLimits};
use crate::error::ApiError;
pub use adapters::{AdapterChoice, MAX_ADAPTER_WEIGHT, MAX_ADAPTERS, unknown_adapter};
pub use control::{ControlFields, ControlOptions};
pub use edits::{
    EDITS_PATH, EditRequest, EditWay, MAX_EDIT_BODY, MAX_FORWARDED_EDIT_BODY, MAX_PICTURE_PIXELS, PictureFile,
    PictureFormat, VARIATIONS_PATH, VariationRequest,
};
pub use output::{Background, Encoding, Output, OutputFormat};
pub use sampler::SamplerKind;
pub use stream::{
    EVENT_STREAM, EventKey, EventKind, MAX_PARTIAL_IMAGES, PictureEvent, StreamEvent, Streaming, first_event,
};
pub use strength::{Strength, StrengthError};
pub use task::{Task, refusal_of};

pub const GENERATIONS_PATH: &str = "/v1/images/generations";
pub const MODELS_PATH: &str = "/v1/models";
/// OpenAI's own bound.
pub const MAX_PROMPT_CHARS: usize = 32_000;
/// Bytes of JSON that `generations` reads: 32,000 characters of up to 4 bytes, escaped, twice, and the rest.
pub const MAX_GENERATION_BODY: u64 = 1 << 20;
/// OpenAI's own bound; a model's `limits.maxImages` may be lower.
pub const MAX_IMAGES: u32 = 10;
/// How much wider and higher a picture comes back than it was drawn, if `upscale` asks for it.
pub const UPSCALE_FACTOR: u32 = 4;
const MAX_GUIDANCE: f32 = 50.0;

/// The body of `POST /v1/images/generations`, as sent. Fields under "extensions" are Easel's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationRequest {
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<OutputFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_compression: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moderation: Option<Moderation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_images: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,

    // Extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<Vec<AdapterChoice>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscale: Option<i64>,
}

/// How many steps are worth it, when `steps` does not say: half, the model's default, twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    Auto,
    Low,
    Medium,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moderation {
    Auto,
    Low,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    Url,
    B64Json,
}

/// What shall be drawn: every field decided and within the model's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub prompt: String,
    pub negative_prompt: String,
    pub n: u32,
    /// That is drawn.
    pub size: ImageSize,
    /// That comes back: `size`, or that of the upscaled picture.
    pub picture_size: ImageSize,
    pub quality: Quality,
    pub steps: u32,
    pub guidance_scale: f32,
    pub sampler: SamplerKind,
    /// Picture `i` of `n` is drawn from `seed + i`; absent: the server picks one and says which.
    pub seed: Option<u64>,
    pub adapters: Vec<AdapterChoice>,
}

impl GenerationRequest {
    /// Reads the JSON. The error names the field.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if is_array(body) {
            return Err(ApiError::malformed("the body must be a JSON object, such as {\"prompt\": \"pizza\"}"));
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let request: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| refuse(&error))?;
        reader.end().map_err(|error| ApiError::malformed(format!("the body is not valid JSON: {error}")))?;
        Ok(request)
    }

    /// Checks what does not depend on a model, so that the gateway can refuse before it looks for one.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.prompt.trim().is_empty() {
            return Err(ApiError::invalid("prompt", "empty_prompt", "prompt is empty; say what to draw"));
        }
        self.check_all_but_emptiness()
    }

    /// For what may be drawn without words.
    fn check_all_but_emptiness(&self) -> Result<(), ApiError> {
        check_prompt("prompt", &self.prompt)?;
        check_prompt("negative_prompt", self.negative_prompt.as_deref().unwrap_or_default())?;
        in_range("n", self.n, 1, i64::from(MAX_IMAGES))?;
        in_range("partial_images", self.partial_images, 0, MAX_PARTIAL_IMAGES.into())?;
        in_range("steps", self.steps, 1, 1000)?;
        check_guidance("guidance_scale", self.guidance_scale)?;
        in_range("upscale", self.upscale, UPSCALE_FACTOR.into(), UPSCALE_FACTOR.into())?;
        parse_size(self.size.as_deref())?;
        adapters::check(self.adapters.as_deref().unwrap_or_default())?;
        self.output()?;
        self.check_supported()
    }

    /// The file that every picture shall become.
    pub fn output(&self) -> Result<Output, ApiError> {
        Output::new(self.output_format, self.output_compression, self.background)
    }

    /// `None`: all pictures come in one answer, at the end.
    pub fn streaming(&self) -> Option<Streaming> {
        let partial_images = self.partial_images.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        (self.stream == Some(true)).then_some(Streaming { partial_images })
    }

    /// What OpenAI's document allows and this server does not do yet is said, never ignored.
    fn check_supported(&self) -> Result<(), ApiError> {
        let unsupported = |param, message: &str| Err(ApiError::invalid(param, "unsupported_value", message));
        if self.streaming().is_none() && self.partial_images.is_some_and(|count| count > 0) {
            return unsupported("partial_images", "partial images come in a stream: set stream to true as well");
        }
        if self.response_format == Some(ResponseFormat::Url) {
            return unsupported("response_format", "only b64_json is supported; pictures come in the response");
        }
        Ok(())
    }

    /// Checks the adapters that are named against those that a model has.
    pub fn check_adapters(&self, known: &[impl AsRef<str>]) -> Result<(), ApiError> {
        adapters::check_known(self.adapters.as_deref().unwrap_or_default(), known)
    }

    /// What this request means for one model.
    pub fn resolve(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        self.check()?;
        self.resolve_checked(defaults, limits)
    }

    fn resolve_checked(&self, defaults: &ModelDefaults, limits: &ModelLimits) -> Result<Generation, ApiError> {
        let n = bounded("n", self.n.unwrap_or(1), limits.max_images)?;
        let size = parse_size(self.size.as_deref())?.unwrap_or(defaults.size);
        if size.pixels() > limits.max_pixels {
            let message = format!("{size} is {} pixels; this model draws at most {}", size.pixels(), limits.max_pixels);
            return Err(invalid_value("size", message));
        }
        let picture_size = match self.upscale {
            Some(_) => size
                .times(UPSCALE_FACTOR)
                .map_err(|error| invalid_value("upscale", format!("four times {size}: {error}")))?,
            None => size,
        };
        let quality = self.quality.unwrap_or(Quality::Auto);
        let steps = match self.steps {
            Some(steps) => bounded("steps", steps, limits.max_steps)?,
            None => quality.steps(defaults.steps).min(limits.max_steps),
        };
        Ok(Generation {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
            n,
            size,
            picture_size,
            quality,
            steps,
            guidance_scale: self.guidance_scale.unwrap_or(defaults.guidance_scale),
            sampler: self.sampler.unwrap_or(defaults.sampler),
            seed: self.seed,
            adapters: self.adapters.clone().unwrap_or_default(),
        })
    }
}

impl Generation {
    /// How often the model is called for each picture. `strength` of a request that starts from one.
    pub fn model_calls(&self, strength: Option<Strength>) -> u32 {
        let taken = strength.map_or(self.steps, |strength| self.sampler.steps_of(self.steps, strength));
        self.sampler.model_calls(taken)
    }
}

impl Quality {
    fn steps(self, default: u32) -> u32 {
        match self {
            Self::Low => default.div_ceil(2),
            Self::Auto | Self::Medium => default,
            Self::High => default.saturating_mul(2),
        }
    }
}

/// serde would read an array as the fields in their order.
fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_some_and(|first| *first == b'[')
}

fn refuse(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let cause = error.inner();
    match cause.classify() {
        serde_json::error::Category::Data => {
            let path = error.path().to_string();
            let code =
                if cause.to_string().starts_with("unknown field") { "unknown_parameter" } else { "invalid_type" };
            match path.as_str() {
                "." => ApiError::malformed(cause.to_string()),
                param => ApiError::invalid(param, code, format!("{param}: {cause}")),
            }
        }
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            ApiError::malformed(format!("the body is not valid JSON: {cause}"))
        }
    }
}

fn check_prompt(param: &str, text: &str) -> Result<(), ApiError> {
    // Bytes first: counting the characters of what is short enough in bytes is wasted work.
    if text.len() > MAX_PROMPT_CHARS && text.chars().count() > MAX_PROMPT_CHARS {
        let message = format!("{param} has {} characters; at most {MAX_PROMPT_CHARS}", text.chars().count());
        return Err(ApiError::invalid(param, "prompt_too_long", message));
    }
    Ok(())
}

fn in_range(param: &str, value: Option<i64>, least: i64, most: i64) -> Result<(), ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(invalid_value(param, format!("{param} is {value}; it must be {least} to {most}")))
        }
        _ => Ok(()),
    }
}

fn check_guidance(param: &str, scale: Option<f32>) -> Result<(), ApiError> {
    match scale {
        Some(scale) if !(0.0..=MAX_GUIDANCE).contains(&scale) => {
            Err(invalid_value(param, format!("{param} must be 0 to {MAX_GUIDANCE}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn unsupported(param: &str, message: &str) -> ApiError {
    ApiError::invalid(param, "unsupported_value", message)
}

fn bounded(param: &str, value: i64, most: u32) -> Result<u32, ApiError> {
    let refused = || invalid_value(param, format!("{param} is {value}; this model allows 1 to {most}"));
    u32::try_from(value).ok().filter(|value| (1..=most).contains(value)).ok_or_else(refused)
}

fn parse_size(size: Option<&str>) -> Result<Option<ImageSize>, ApiError> {
    match size {
        None | Some("auto") => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|error: crate::SizeError| invalid_value("size", error.to_string()))
        }
    }
}

fn invalid_value(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(param, "invalid_value", message)
}

/// The answer of every image endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagesResponse {
    /// Seconds since 1970.
    pub created: u64,
    pub data: Vec<Image>,
    pub background: Background,
    pub output_format: OutputFormat,
    pub size: ImageSize,
    pub quality: Quality,
    pub usage: Usage,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub b64_json: String,
    /// Extension: the same request with this seed and `n: 1` draws this picture again.
    pub seed: u64,
}

/// OpenAI counts tokens. Here, text tokens are those that the text encoder read, and image tokens are latent
/// positions × pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub total_tokens: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub input_tokens_details: InputTokens,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputTokens {
    pub text_tokens: u64,
    pub image_tokens: u64,
}

/// The answer of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    pub object: String,
    pub data: Vec<Model>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub id: String,
    pub object: String,
    pub created: u64,
    pub owned_by: String,
}

#[cfg(test)]
#[path = "images/tests.rs"]
mod tests;
