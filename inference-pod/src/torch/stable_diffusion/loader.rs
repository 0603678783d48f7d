//! Makes a pipeline of a folder in the diffusers layout. Refuses by name whatever it would draw wrongly.

use easel_checkpoints::Files;

use super::guard::guarded;
use super::{StableDiffusion, Task};
use crate::pipeline::{LoadError, Loader};
use crate::torch::clip::ClipTextModel;
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::sampler::schedule::NoiseSchedule;
use crate::torch::tokenizer::ClipTokenizer;
use crate::torch::unet::UNet2DConditionModel;
use crate::torch::vae::AutoencoderKl;
use crate::vocabulary::Vocabulary;

const PIPELINES: [(&str, Task); 2] =
    [("StableDiffusionPipeline", Task::Generate), ("StableDiffusionInstructPix2PixPipeline", Task::Edit)];
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

    fn load(&self, files: &Files) -> Result<StableDiffusion, LoadError> {
        let task = check_classes(files)?;
        guarded("compute", || Ok(load_parts(files, task, self.placement))).unwrap_or_else(|error| {
            Err(LoadError::Failed { part: "the checkpoint".to_owned(), source: Box::new(error) })
        })
    }

    fn device(&self) -> String {
        self.placement.to_string()
    }
}

fn load_parts(files: &Files, task: Task, placement: Placement) -> Result<StableDiffusion, LoadError> {
    // Small and likely to be refused first, large last.
    let vocabulary = Vocabulary::read(files)?;
    let schedule = match task {
        Task::Generate => NoiseSchedule::read_corrected(files)?,
        Task::Edit => NoiseSchedule::read(files)?,
    };
    let text_encoder = ClipTextModel::load(files, placement)?;
    let tokenizer = ClipTokenizer::load(files, text_encoder.max_length())?;
    let vae = match task {
        Task::Generate => AutoencoderKl::load(files, placement)?,
        Task::Edit => AutoencoderKl::load_with_encoder(files, placement)?,
    };
    let unet = UNet2DConditionModel::load(files, placement)?;
    check_fit(task, &text_encoder, &vae, &unet)?;
    Ok(StableDiffusion { task, tokenizer, text_encoder, unet, vae, schedule, vocabulary, placement })
}

/// `model_index.json`: the pipeline's class and those of its components. The scheduler's is checked where it is read;
/// the safety checker and its feature extractor are not run.
fn check_classes(files: &Files) -> Result<Task, LoadError> {
    let mut index = Config::read(files, "model_index.json")?;
    let class: String = index.need("_class_name")?;
    let Some((_, task)) = PIPELINES.into_iter().find(|(name, _)| *name == class) else {
        return Err(index.unsupported("_class_name", &class));
    };
    for (component, known) in COMPONENTS {
        let (_library, class): (String, String) = index.need(component)?;
        if !known.contains(&class.as_str()) {
            return Err(index.unsupported(component, &class));
        }
    }
    index.ignore(&["scheduler", "safety_checker", "feature_extractor", "requires_safety_checker"]);
    index.finish(&[("image_encoder", serde_json::json!([null, null]))])?;
    Ok(task)
}

/// What each part promises the next: text of one width, and latents of one number of channels, which an editing model
/// gets twice: those of the picture behind those that are drawn.
fn check_fit(
    task: Task,
    text_encoder: &ClipTextModel,
    vae: &AutoencoderKl,
    unet: &UNet2DConditionModel,
) -> Result<(), LoadError> {
    let latents = vae.latent_channels();
    let (input, wanted) = match task {
        Task::Generate => ("the VAE's latent_channels", latents),
        Task::Edit => ("twice the VAE's latent_channels", 2 * latents),
    };
    let text = text_encoder.hidden_size();
    let pairs = [
        ("the text encoder's hidden_size", text, "cross_attention_dim", unet.text_channels()),
        (input, wanted, "in_channels", unet.in_channels()),
        ("the VAE's latent_channels", latents, "out_channels", unet.out_channels()),
    ];
    for (left, wanted, right, found) in pairs {
        if found != wanted {
            return Err(LoadError::Unsupported(format!(
                "unet/config.json: '{right}' is {found}; beside {left} it must be {wanted}"
            )));
        }
    }
    Ok(())
}
