//! Makes a pipeline of a folder in the diffusers layout. Refuses by name whatever it would draw wrongly.

use std::path::Path;

use super::StableDiffusion;
use super::guard::guarded;
use crate::pipeline::{LoadError, Loader};
use crate::torch::clip::ClipTextModel;
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::sampler::schedule::NoiseSchedule;
use crate::torch::tokenizer::ClipTokenizer;
use crate::torch::unet::UNet2DConditionModel;
use crate::torch::vae::AutoencoderKl;

/// Component and the classes of it that we compute.
const COMPONENTS: [(&str, &[&str]); 4] = [
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];

/// Loads to one device, in one dtype.
#[derive(Clone, Copy, Debug)]
pub struct TorchLoader {
    placement: Placement,
}

impl TorchLoader {
    /// [`crate::torch::init`] must have run before, or `placement` can only be the CPU.
    pub fn new(placement: Placement) -> Self {
        Self { placement }
    }
}

impl Loader for TorchLoader {
    type Pipeline = StableDiffusion;

    fn load(&self, folder: &Path) -> Result<StableDiffusion, LoadError> {
        check_classes(folder)?;
        guarded("compute", || Ok(load_parts(folder, self.placement))).unwrap_or_else(|error| {
            Err(LoadError::Failed { part: "the checkpoint".to_owned(), source: Box::new(error) })
        })
    }

    fn device(&self) -> String {
        self.placement.to_string()
    }
}

fn load_parts(folder: &Path, placement: Placement) -> Result<StableDiffusion, LoadError> {
    // Small and likely to be refused first, large last.
    let schedule = NoiseSchedule::read(folder)?;
    let text_encoder = ClipTextModel::load(folder, placement)?;
    let tokenizer = ClipTokenizer::load(folder, text_encoder.max_length())?;
    let vae = AutoencoderKl::load(folder, placement)?;
    let unet = UNet2DConditionModel::load(folder, placement)?;
    check_fit(&text_encoder, &vae, &unet)?;
    Ok(StableDiffusion { tokenizer, text_encoder, unet, vae, schedule, placement })
}

/// `model_index.json`: the pipeline's class and those of its components. The scheduler's is checked where it is read;
/// the safety checker and its feature extractor are not run.
fn check_classes(folder: &Path) -> Result<(), LoadError> {
    let mut index = Config::read(folder, "model_index.json")?;
    let class: String = index.need("_class_name")?;
    if class != "StableDiffusionPipeline" {
        return Err(index.unsupported("_class_name", &class));
    }
    for (component, known) in COMPONENTS {
        let (_library, class): (String, String) = index.need(component)?;
        if !known.contains(&class.as_str()) {
            return Err(index.unsupported(component, &class));
        }
    }
    index.ignore(&["scheduler", "safety_checker", "feature_extractor", "requires_safety_checker"]);
    index.finish(&[("image_encoder", serde_json::json!([null, null]))])
}

/// What each part promises the next. A picture is made of latents alone, so in, out and decoded channels are one.
fn check_fit(text_encoder: &ClipTextModel, vae: &AutoencoderKl, unet: &UNet2DConditionModel) -> Result<(), LoadError> {
    let pairs = [
        (
            "the text encoder's hidden_size",
            text_encoder.hidden_size(),
            "unet's cross_attention_dim",
            unet.text_channels(),
        ),
        ("the VAE's latent_channels", vae.latent_channels(), "unet's in_channels", unet.in_channels()),
        ("the unet's in_channels", unet.in_channels(), "unet's out_channels", unet.out_channels()),
    ];
    for (left, found, right, expected) in pairs {
        if found != expected {
            return Err(LoadError::Unsupported(format!("{left} is {found}, the {right} is {expected}")));
        }
    }
    Ok(())
}
