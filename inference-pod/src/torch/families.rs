//! The families of checkpoints: which class of pipeline is read by whom, and what each family does in its own way.
//! A family is one module and one line of [`load`]; what all of them share is `super::diffusion`.

mod denoiser;
mod flow_schedule;
mod flux;
mod stable_diffusion;
mod stable_diffusion_3;
mod stable_diffusion_xl;
mod together;

use easel_checkpoints::Files;
use std::fmt;

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use tch::Tensor;

use super::config::Config;
use super::device::Placement;
use super::diffusion::Input;
use super::lora::Layers;
use super::sampler::{Sampler, SamplerError};
use super::vae::{AutoencoderKl, EncoderUse};
use super::weights::Tensors;
use crate::pipeline::{LoadError, PipelineError};
use together::together;

/// Classes of tokenizers that read CLIP's.
const CLIP_TOKENIZERS: &[&str] =
    &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];

/// Classes of tokenizers that read T5's.
const T5_TOKENIZERS: &[&str] = &["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];

/// Reads prompts and predicts; everything between is the same for all.
pub(super) trait Family: fmt::Debug + Send {
    /// One row for each of the prompts.
    fn encode(&self, prompts: Prompts<'_>, size: ImageSize) -> Result<Conditioning, PipelineError>;

    /// `sample` `[rows, in_channels, h, w]`, `times` `[rows]` and a conditioning of as many rows → what the sampler
    /// takes, `[rows, latent channels, h, w]` of f32.
    fn predict(&self, sample: &Tensor, times: &Tensor, conditioning: &Conditioning) -> Tensor;

    /// What a `ControlNet` reads of a picture `[1, 3, height, width]` of 0..1, where the checkpoint has one.
    fn hint(&self, _picture: &Tensor) -> Option<Tensor> {
        None
    }

    /// Of a picture whose latents have so many `positions`, height times width: some schedules depend on them.
    fn sampler(&self, kind: SamplerKind, steps: u32, positions: i64) -> Result<Sampler, SamplerError>;

    /// Whether guidance is a matter of the model itself, so that a job takes one row and its negative prompt is not read.
    fn guides_itself(&self) -> bool {
        false
    }

    /// Whether `predict` takes latents of this height and width; the text says why not.
    fn check_latents(&self, _height: i64, _width: i64) -> Result<(), String> {
        Ok(())
    }

    /// Of what `predict` is shown.
    fn in_channels(&self) -> i64;

    /// Vectors of text that `predict` reads.
    fn text_length(&self) -> usize;

    /// Tokens of this prompt, begin and end included, as the first text encoder reads them.
    fn text_tokens(&self, prompt: &str) -> u32;

    /// Layers that adapters can change, of all parts.
    fn adaptable(&self) -> Layers;

    /// Its weights, part by part.
    fn tensors(&self) -> Vec<&Tensors>;
}

/// What a job's rows read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prompts<'a> {
    /// With guidance only. It is the first row.
    pub(super) negative: Option<&'a str>,
    pub(super) prompt: &'a str,
    /// For families that guide themselves.
    pub(super) guidance_scale: f32,
}

impl<'a> Prompts<'a> {
    pub(super) fn rows(self) -> Vec<&'a str> {
        self.negative.into_iter().chain([self.prompt]).collect()
    }
}

/// What a prediction reads beside latents and times.
#[derive(Debug)]
pub(super) struct Conditioning {
    /// `[rows, length, channels]`
    pub(super) text: Tensor,
    /// `[rows, channels]`: what is said of the picture as a whole, where the family has that.
    pub(super) pooled: Option<Tensor>,
    /// What steers, where the checkpoint has a `ControlNet`.
    pub(super) control: Option<Control>,
}

/// What a `ControlNet` reads beside the rest.
#[derive(Debug)]
pub(super) struct Control {
    /// `[rows, channels, h, w]`, see [`Family::hint`].
    pub(super) hint: Tensor,
    /// How much each of the rows is steered in this step.
    pub(super) scales: Vec<f32>,
}

impl Conditioning {
    /// Without what steers, which is the same for every row.
    pub(super) fn row(&self, row: i64) -> Self {
        let narrow = |tensor: &Tensor| tensor.narrow(0, row, 1);
        Self { text: narrow(&self.text), pooled: self.pooled.as_ref().map(narrow), control: None }
    }

    /// Of one checkpoint: either all are pooled or none is, and so are all steered.
    pub(super) fn cat(rows: &[Self]) -> Self {
        let text: Vec<&Tensor> = rows.iter().map(|row| &row.text).collect();
        let pooled: Vec<&Tensor> = rows.iter().filter_map(|row| row.pooled.as_ref()).collect();
        let controls: Vec<&Control> = rows.iter().filter_map(|row| row.control.as_ref()).collect();
        Self {
            text: Tensor::cat(&text, 0),
            pooled: (!pooled.is_empty()).then(|| Tensor::cat(&pooled, 0)),
            control: (!controls.is_empty()).then(|| Control::cat(&controls)),
        }
    }
}

impl Control {
    fn cat(rows: &[&Self]) -> Self {
        let hints: Vec<&Tensor> = rows.iter().map(|row| &row.hint).collect();
        Self { hint: Tensor::cat(&hints, 0), scales: rows.iter().flat_map(|row| row.scales.iter().copied()).collect() }
    }

    /// Whether any row is steered: where none is, the `ControlNet` need not be asked.
    fn works(&self) -> bool {
        self.scales.iter().any(|scale| *scale != 0.0)
    }
}

/// What a family makes of a folder.
pub(super) struct Loaded {
    pub(super) input: Input,
    pub(super) family: Box<dyn Family>,
    pub(super) vae: AutoencoderKl,
}

/// Reads the checkpoint by the class that its `model_index.json` names.
pub(super) fn load(checkpoint: &Files, placement: Placement) -> Result<Loaded, LoadError> {
    let mut index = Config::read(checkpoint, "model_index.json")?;
    let class: String = index.need("_class_name")?;
    let purpose = Purpose::of(&class);
    match class.as_str() {
        "FluxPipeline" | "FluxImg2ImgPipeline" | "FluxInpaintPipeline" => flux::load(index, checkpoint, placement),
        "StableDiffusionPipeline"
        | "StableDiffusionImg2ImgPipeline"
        | "StableDiffusionInpaintPipeline"
        | "StableDiffusionControlNetPipeline"
        | "StableDiffusionInstructPix2PixPipeline" => stable_diffusion::load(index, checkpoint, purpose, placement),
        "StableDiffusion3Pipeline" | "StableDiffusion3Img2ImgPipeline" | "StableDiffusion3InpaintPipeline" => {
            stable_diffusion_3::load(index, checkpoint, placement)
        }
        "StableDiffusionXLPipeline"
        | "StableDiffusionXLImg2ImgPipeline"
        | "StableDiffusionXLInpaintPipeline"
        | "StableDiffusionXLControlNetPipeline" => stable_diffusion_xl::load(index, checkpoint, purpose, placement),
        _ => Err(index.unsupported("_class_name", &class)),
    }
}

/// What the pipeline that a checkpoint names is for: its parts may differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Draw,
    /// Draw as a picture steers.
    Control,
    Inpaint,
    Instruct,
}

impl Purpose {
    fn of(class: &str) -> Self {
        match class {
            _ if class.ends_with("ControlNetPipeline") => Self::Control,
            _ if class.ends_with("InpaintPipeline") => Self::Inpaint,
            _ if class.ends_with("InstructPix2PixPipeline") => Self::Instruct,
            _ => Self::Draw,
        }
    }

    /// Inpainting is done with models that see the mask, and with those that only draw.
    fn input(self, in_channels: i64, latents: i64) -> Input {
        match self {
            Self::Inpaint if in_channels != latents => Input::WithMask,
            Self::Draw | Self::Inpaint => Input::Latents,
            Self::Control => Input::Steered,
            Self::Instruct => Input::WithPicture,
        }
    }

    fn encoder(self) -> EncoderUse {
        match self {
            Self::Control => EncoderUse::Never,
            Self::Draw => EncoderUse::IfThere,
            Self::Inpaint | Self::Instruct => EncoderUse::Needed,
        }
    }
}

/// What stands beside the input channels in the sentence that refuses another number of them.
fn channels_beside(input: Input) -> &'static str {
    match input {
        Input::Latents | Input::Steered => "the VAE's latent_channels",
        Input::WithPicture => "twice the VAE's latent_channels",
        Input::WithMask => "twice the VAE's latent_channels, and a mask",
    }
}

/// Refuses a component of a class that is not among those named beside it. The scheduler's is checked where it is read.
fn check_components(index: &mut Config, known: &[(&str, &[&str])]) -> Result<(), LoadError> {
    for (component, classes) in known {
        let (_library, class): (String, String) = index.need(component)?;
        if !classes.contains(&class.as_str()) {
            return Err(index.unsupported(component, &class));
        }
    }
    index.ignore(&["scheduler"]);
    Ok(())
}

/// What one part promises another.
struct Fit<'a> {
    /// Of another part.
    beside: &'a str,
    wanted: i64,
    option: &'a str,
    found: i64,
}

/// Refuses the part whose options are in `file` if it does not fit the others.
fn check_fit(file: &str, fits: &[Fit]) -> Result<(), LoadError> {
    for Fit { beside, wanted, option, found } in fits {
        if found != wanted {
            let text = format!("{file}: '{option}' is {found}; beside {beside} it must be {wanted}");
            return Err(LoadError::Unsupported(text));
        }
    }
    Ok(())
}
