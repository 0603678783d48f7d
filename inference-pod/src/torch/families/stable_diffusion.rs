//! Stable Diffusion 1 and 2, and their kinds that inpaint, that edit (`InstructPix2Pix`) and that a picture steers
//! (`ControlNet`): one CLIP, one `UNet`. Refuses by name whatever it would draw wrongly.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use tch::Tensor;

use super::denoiser::{CONTROLNET, Denoiser, DenoiserKind};
use super::{
    CLIP_TOKENIZERS, Conditioning, Family, Fit, Loaded, Prompts, Purpose, channels_beside, check_components, check_fit,
    together,
};
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::clip::ClipTextModel;
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::diffusion::Input;
use crate::torch::lora::Layers;
use crate::torch::sampler::schedule::NoiseSchedule;
use crate::torch::sampler::{Sampler, SamplerError};
use crate::torch::tokenizer::PromptTokenizer;
use crate::torch::unet::UNet2DConditionModel;
use crate::torch::vae::{AutoencoderKl, VaeUse};
use crate::torch::weights::Tensors;

/// Component and the classes of it that we compute.
const COMPONENTS: [(&str, &[&str]); 4] = [
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", CLIP_TOKENIZERS),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];

#[derive(Debug)]
struct StableDiffusion {
    tokenizer: PromptTokenizer,
    text_encoder: ClipTextModel,
    denoiser: Denoiser,
    schedule: NoiseSchedule,
}

pub(super) fn load(
    mut index: Config,
    checkpoint: &Files,
    purpose: Purpose,
    placement: Placement,
) -> Result<Loaded, LoadError> {
    check_components(&mut index, &COMPONENTS)?;
    let steered = purpose == Purpose::Control;
    check_components(&mut index, if steered { &[CONTROLNET] } else { &[] })?;
    // The safety checker and its feature extractor are not run.
    index.ignore(&["safety_checker", "feature_extractor", "requires_safety_checker"]);
    index.finish(&[("image_encoder", serde_json::json!([null, null]))])?;
    // Small and likely to be refused first.
    let schedule = match purpose {
        Purpose::Draw | Purpose::Control => NoiseSchedule::read_corrected(checkpoint)?,
        // Their pipelines correct one of both, and none.
        Purpose::Inpaint => NoiseSchedule { steps_offset: 1, ..NoiseSchedule::read(checkpoint)? },
        Purpose::Instruct => NoiseSchedule::read(checkpoint)?,
    };
    let beside = || {
        let text_encoder = ClipTextModel::load(checkpoint, "text_encoder", placement)?;
        let tokenizer = PromptTokenizer::load_clip(checkpoint, "tokenizer", text_encoder.max_length())?;
        let wanted = VaeUse { encoder: purpose.encoder(), ..VaeUse::default() };
        let vae = AutoencoderKl::load_for(checkpoint, placement, wanted)?;
        Ok((text_encoder, tokenizer, vae))
    };
    let kind = DenoiserKind { adds: false, steered };
    let ((text_encoder, tokenizer, vae), denoiser) = together(beside, || Denoiser::load(checkpoint, placement, kind))?;
    let input = purpose.input(denoiser.unet.in_channels(), vae.latent_channels());
    fit(input, &text_encoder, &vae, &denoiser.unet)?;
    denoiser.check_control(&vae)?;
    Ok(Loaded { input, family: Box::new(StableDiffusion { tokenizer, text_encoder, denoiser, schedule }), vae })
}

/// What each part promises the next: text of one width, and latents of one number of channels, behind which the model
/// may see more.
fn fit(
    input: Input,
    text_encoder: &ClipTextModel,
    vae: &AutoencoderKl,
    unet: &UNet2DConditionModel,
) -> Result<(), LoadError> {
    let latents = vae.latent_channels();
    let (text, found) = (text_encoder.hidden_size(), unet.text_channels());
    check_fit(
        "unet/config.json",
        &[
            Fit { beside: "the text encoder's hidden_size", wanted: text, option: "cross_attention_dim", found },
            Fit {
                beside: channels_beside(input),
                wanted: input.channels(latents),
                option: "in_channels",
                found: unet.in_channels(),
            },
            Fit {
                beside: "the VAE's latent_channels",
                wanted: latents,
                option: "out_channels",
                found: unet.out_channels(),
            },
        ],
    )
}

impl Family for StableDiffusion {
    fn encode(&self, prompts: Prompts<'_>, _size: ImageSize) -> Result<Conditioning, PipelineError> {
        let tokens = self.tokenizer.encode_all(&prompts.rows())?;
        Ok(Conditioning { text: self.text_encoder.forward(&tokens), pooled: None, control: None })
    }

    fn predict(&self, sample: &Tensor, times: &Tensor, conditioning: &Conditioning) -> Tensor {
        self.denoiser.predict(sample, times, conditioning)
    }

    fn hint(&self, picture: &Tensor) -> Option<Tensor> {
        self.denoiser.hint(picture)
    }

    fn sampler(&self, kind: SamplerKind, steps: u32, _positions: i64) -> Result<Sampler, SamplerError> {
        Sampler::new(kind, &self.schedule, steps)
    }

    fn in_channels(&self) -> i64 {
        self.denoiser.unet.in_channels()
    }

    fn text_length(&self) -> usize {
        self.tokenizer.length()
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        self.tokenizer.count(prompt)
    }

    fn adaptable(&self) -> Layers {
        Layers::default().and(self.text_encoder.adaptable()).and(self.denoiser.unet.adaptable())
    }

    fn tensors(&self) -> Vec<&Tensors> {
        [self.text_encoder.tensors()].into_iter().chain(self.denoiser.tensors()).collect()
    }
}
