//! Stable Diffusion XL without its refiner: two CLIPs, of which the second also reads the prompt as a whole, and a
//! `UNet` that is told sizes and crop. Transcribed from diffusers 0.42.1, `pipeline_stable_diffusion_xl.py`.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use serde_json::json;
use tch::Tensor;

use super::denoiser::{CONTROLNET, Denoiser, DenoiserKind};
use super::{
    CLIP_TOKENIZERS, Conditioning, Family, Fit, Loaded, Prompts, Purpose, channels_beside, check_components, check_fit,
    together,
};
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::clip::{ClipPair, ClipTextModel};
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::diffusion::Input;
use crate::torch::lora::Layers;
use crate::torch::sampler::schedule::NoiseSchedule;
use crate::torch::sampler::{Sampler, SamplerError};
use crate::torch::unet::UNet2DConditionModel;
use crate::torch::vae::{AutoencoderKl, VaeUse};
use crate::torch::weights::Tensors;

const COMPONENTS: [(&str, &[&str]); 6] = [
    ("text_encoder", &["CLIPTextModel"]),
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer", CLIP_TOKENIZERS),
    ("tokenizer_2", CLIP_TOKENIZERS),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];
/// Original size, crop and target size, two numbers each.
const TIME_IDS: i64 = 6;

#[derive(Debug)]
struct StableDiffusionXl {
    clips: ClipPair,
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    /// Guide by zeros where there is no negative prompt.
    force_zeros_for_empty_prompt: bool,
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
    let force_zeros_for_empty_prompt = index.take_or("force_zeros_for_empty_prompt", true)?;
    let none = json!([null, null]);
    // The refiner's, which is told a score of beauty in the place of a size.
    let plain = ("requires_aesthetics_score", json!(false));
    index.finish(&[("image_encoder", none.clone()), ("feature_extractor", none), plain])?;
    let schedule = NoiseSchedule::read(checkpoint)?;
    let beside = || {
        let text_encoders = [
            ClipTextModel::load(checkpoint, "text_encoder", placement)?,
            ClipTextModel::load_with_projection(checkpoint, "text_encoder_2", placement)?,
        ];
        let clips = ClipPair::load(checkpoint, text_encoders)?;
        let wanted = VaeUse { encoder: purpose.encoder(), upcasts: true, shifts: false };
        let vae = AutoencoderKl::load_for(checkpoint, placement, wanted)?;
        Ok((clips, vae))
    };
    let kind = DenoiserKind { adds: true, steered };
    let ((clips, vae), denoiser) = together(beside, || Denoiser::load(checkpoint, placement, kind))?;
    let input = purpose.input(denoiser.unet.in_channels(), vae.latent_channels());
    fit(input, &clips, &vae, &denoiser.unet)?;
    denoiser.check_control(&vae)?;
    let family = Box::new(StableDiffusionXl { clips, denoiser, schedule, force_zeros_for_empty_prompt });
    Ok(Loaded { input, family, vae })
}

fn fit(input: Input, clips: &ClipPair, vae: &AutoencoderKl, unet: &UNet2DConditionModel) -> Result<(), LoadError> {
    let added = clips.pooled_size() + TIME_IDS * unet.time_id_channels();
    let latents = vae.latent_channels();
    let fit = |beside, wanted, option, found| Fit { beside, wanted, option, found };
    check_fit(
        "unet/config.json",
        &[
            fit("both text encoders' hidden_size", clips.hidden_size(), "cross_attention_dim", unet.text_channels()),
            fit(
                "the second text encoder's projection_dim and six of 'addition_time_embed_dim'",
                added,
                "projection_class_embeddings_input_dim",
                unet.added_channels(),
            ),
            fit(channels_beside(input), input.channels(latents), "in_channels", unet.in_channels()),
            fit("the VAE's latent_channels", latents, "out_channels", unet.out_channels()),
        ],
    )
}

impl Family for StableDiffusionXl {
    /// `encode_prompt` and `_get_add_time_ids` with the defaults of `__call__`: the picture is whole and of the size
    /// that was asked for. What a request leaves out comes here as an empty negative prompt, so that is what diffusers
    /// calls none.
    fn encode(&self, prompts: Prompts<'_>, size: ImageSize) -> Result<Conditioning, PipelineError> {
        let read = self.clips.encode(&prompts.rows())?;
        let (height, width) = (i64::from(size.height()), i64::from(size.width()));
        let time_ids = Tensor::from_slice(&[height, width, 0, 0, height, width]).view([1, TIME_IDS]);
        let time_ids = time_ids.expand([read.pooled.size()[0], -1], false); // [rows, 6]
        let (text, pooled) = (read.hidden, read.pooled);
        if self.force_zeros_for_empty_prompt && prompts.negative.is_some_and(str::is_empty) {
            let _ = text.narrow(0, 0, 1).zero_();
            let _ = pooled.narrow(0, 0, 1).zero_();
        }
        let pooled = self.denoiser.unet.added_conditions(&pooled, &time_ids);
        Ok(Conditioning { text, pooled, control: None })
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
        self.clips.length()
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        self.clips.count(prompt)
    }

    fn adaptable(&self) -> Layers {
        self.clips.adaptable().and(self.denoiser.unet.adaptable())
    }

    fn tensors(&self) -> Vec<&Tensors> {
        self.clips.tensors().chain(self.denoiser.tensors()).collect()
    }
}
