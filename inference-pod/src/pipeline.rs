//! The one trait between server and model: encode, denoise a step, decode.
//! Owns what a request for one picture is; knows neither HTTP nor tensors, which stay opaque inside `Job`.

use std::sync::Arc;

use easel_api::ImageSize;
use easel_api::images::{ControlOptions, SamplerKind, Strength, Task};
use easel_checkpoints::Files;

use crate::vocabulary::Vocabulary;

/// One picture to draw. A request for `n` pictures is `n` of these, with seeds counted up.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureRequest {
    pub prompt: String,
    pub negative_prompt: String,
    pub seed: u64,
    pub steps: u32,
    pub guidance_scale: f32,
    pub size: ImageSize,
    pub sampler: SamplerKind,
    /// Absent: it is drawn from nothing.
    pub edit: Option<Edit>,
    /// What changes the model while it draws this picture.
    pub adapters: Vec<WornAdapter>,
}

/// An adapter of the model, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct WornAdapter {
    pub name: String,
    /// Of its files: what a pipeline knows it by.
    pub digest: String,
    /// 0 is none, 1 as it was trained; negative is away from it.
    pub weight: f32,
}

/// What a picture is made of beside the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// As large as the picture that shall be drawn.
    pub picture: Arc<Picture>,
    pub way: Way,
}

/// How the picture becomes another one.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// The model sees it and is told what to change. How much the result shall look like it; below 1 there is no
    /// guidance at all, as in diffusers.
    Instruct { image_guidance_scale: f32 },
    /// It is drawn on from where so much noise lies on it.
    ImageToImage { strength: Strength },
    /// The same inside of a mask; outside, not a pixel changes.
    Inpaint { mask: Arc<Mask>, strength: Strength },
    /// It steers, by a `ControlNet`.
    Control(ControlOptions),
}

impl PictureRequest {
    pub fn task(&self) -> Task {
        match self.edit.as_ref().map(|edit| &edit.way) {
            None => Task::Generate,
            Some(Way::Instruct { .. }) => Task::Instruct,
            Some(Way::ImageToImage { .. }) => Task::ImageToImage,
            Some(Way::Inpaint { .. }) => Task::Inpaint,
            Some(Way::Control(_)) => Task::Control,
        }
    }

    /// Absent where nothing is left out.
    pub fn strength(&self) -> Option<Strength> {
        match self.edit.as_ref()?.way {
            Way::Instruct { .. } | Way::Control(_) => None,
            Way::ImageToImage { strength } | Way::Inpaint { mask: _, strength } => Some(strength),
        }
    }

    /// How often the model is called for it.
    pub fn model_calls(&self) -> u32 {
        let taken = self.strength().map_or(self.steps, |strength| self.sampler.steps_of(self.steps, strength));
        self.sampler.model_calls(taken)
    }
}

/// Where a picture shall be drawn anew, pixel by pixel, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    pub size: ImageSize,
    pub edited: Vec<bool>,
}

impl Mask {
    /// `drawn` where the picture is drawn anew, `kept` elsewhere. All are of one size.
    #[must_use]
    pub fn lay(&self, drawn: Picture, kept: &Picture) -> Picture {
        let Picture { size, mut rgb } = drawn;
        for ((drawn, kept), edited) in rgb.chunks_exact_mut(3).zip(kept.rgb.chunks_exact(3)).zip(&self.edited) {
            if !edited {
                drawn.copy_from_slice(kept);
            }
        }
        Picture { size, rgb }
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.size)
    }
}

/// What may share a model call. Two jobs of one model and one key give the same pictures batched and alone, within
/// the tolerance of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    pub input_channels: u32,
    /// Of the latents.
    pub height: u32,
    pub width: u32,
    pub text_length: u32,
    /// Of the model's batch, for each job: guidance by the text takes a second, by a picture a third. Jobs with
    /// different numbers do not mix.
    pub rows: u32,
}

/// A finished picture: 8 bits a channel, row by row from the top, `[height][width][rgb]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub size: ImageSize,
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}, {} bytes)", self.size, self.rgb.len())
    }
}

/// Memory beside weights and latents while one picture is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeMemory {
    /// Bytes for each latent position.
    pub per_position: u64,
    /// Of more, one part is decoded after the other.
    pub most_positions: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The request can't be drawn by this model: the caller's fault.
    #[error("{0}")]
    Unsupported(String),
    /// The model call failed: ours.
    #[error("failed to {step}")]
    Failed {
        step: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An exported job that no job can go on from.
    #[error("the snapshot can't be used: {0}")]
    Snapshot(String),
    /// Numbers went wrong on the way; a black picture would hide it.
    #[error("the model produced values that are not numbers")]
    NotFinite,
}

/// A loaded checkpoint. Called by one engine thread only, one call at a time.
pub trait Pipeline: Send + 'static {
    /// A picture on its way: latents, embeddings, and the sampler with its history. Belongs to the request.
    type Job: Send;
    /// An adapter in the device's memory, fitted to this checkpoint.
    type Adapter: Send;
    /// What an adapter must fit.
    type Layers: Send;
    /// The checkpoint in the host's memory, where it can't draw.
    type Parked: Send + 'static;

    /// Off the device, into the host's memory, without its adapters. What fails is gone from both.
    fn park(self) -> Result<Self::Parked, PipelineError>
    where
        Self: Sized;

    /// Back on the device, as it was but for adapters. What fails is gone from both.
    fn wake(parked: Self::Parked) -> Result<Self, PipelineError>
    where
        Self: Sized;

    /// Of the host's memory, and on the device later.
    fn parked_bytes(parked: &Self::Parked) -> u64;

    /// What may share a step with this request. Must equal for jobs that `denoise_step` gets together.
    fn batch_key(&self, request: &PictureRequest) -> BatchKey;

    /// For [`Loader::load_adapter`].
    fn layers(&self) -> Self::Layers;

    /// Keeps an adapter for requests that name this digest.
    fn hold_adapter(&mut self, digest: &str, adapter: Self::Adapter);

    /// Nobody may draw with it any more.
    fn drop_adapter(&mut self, digest: &str);

    /// Of the device's memory.
    fn adapter_bytes(adapter: &Self::Adapter) -> u64;

    /// Reads the prompt and draws the first noise. The result depends on the request alone. Its adapters are held.
    fn encode(&self, request: &PictureRequest) -> Result<Self::Job, PipelineError>;

    /// Takes every job of the batch one step further. Jobs may be at different steps.
    fn denoise_step(&self, batch: &mut [&mut Self::Job]) -> Result<(), PipelineError>;

    /// How far the job is, as bytes from which [`Pipeline::resume`] goes on: wherever it does, the rest of the steps is
    /// the same.
    fn export(&self, job: &Self::Job) -> Result<Vec<u8>, PipelineError>;

    /// [`Pipeline::encode`], and then as far as the exported job of an equal request was. Bytes of another one, or that can't
    /// be read, are an error; nothing bad comes of them.
    fn resume(&self, request: &PictureRequest, exported: &[u8]) -> Result<Self::Job, PipelineError>;

    /// Turns the latents into a picture.
    fn decode(&self, job: &Self::Job) -> Result<Picture, PipelineError>;

    /// What the picture will look like, roughly, at its full size: cheap beside a step, and after a step only. `None`
    /// when there is nothing to see yet.
    fn preview(&self, job: &Self::Job) -> Result<Option<Picture>, PipelineError>;

    /// What this checkpoint can do, at least one; the first is what it is for. A request for anything else is refused
    /// before it is encoded.
    fn tasks(&self) -> &[Task];

    /// The words that the model was trained on, if its checkpoint says.
    fn vocabulary(&self) -> Option<&Vocabulary>;

    /// Tokens that the text encoder reads of this prompt, for `usage`.
    fn text_tokens(&self, prompt: &str) -> u32;

    /// Bytes of weights held in the device's memory.
    fn memory_bytes(&self) -> u64;

    /// What turning latents into a picture takes.
    fn decode_memory(&self) -> DecodeMemory {
        DecodeMemory::default()
    }

    /// Bytes that the last step took at its height beside weights and latents, where the device says so.
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
}

/// Makes pipelines from the files of checkpoints.
pub trait Loader: Send + Sync + 'static {
    type Pipeline: Pipeline;

    /// Reads a checkpoint in the diffusers layout, and opens none of its files in another way: what is read is hashed on
    /// its way. The bytes may still turn out to be others than the digest's, and nobody draws before they are proved, so
    /// they are parsed and put in their place and no more. Unknown classes are refused by name.
    fn load(&self, files: &Files) -> Result<Self::Pipeline, LoadError>;

    /// The same, into the host's memory.
    fn load_parked(&self, files: &Files) -> Result<<Self::Pipeline as Pipeline>::Parked, LoadError>;

    /// Whether the device has memory of its own. Where it has none, parking frees nothing, and there is no host tier.
    fn has_host_tier(&self) -> bool;

    /// Reads an adapter for a checkpoint of these layers, by the rules of [`Loader::load`]. What does not fit is refused by
    /// name.
    fn load_adapter(
        &self,
        files: &Files,
        layers: &<Self::Pipeline as Pipeline>::Layers,
    ) -> Result<<Self::Pipeline as Pipeline>::Adapter, LoadError>;

    /// The device that pipelines run on, such as `cpu` or `cuda:0`.
    fn device(&self) -> String;
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A class, dtype or layout that no pipeline knows; the text names it.
    #[error("{0}")]
    Unsupported(String),
    #[error("failed to load {part}")]
    Failed {
        part: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
