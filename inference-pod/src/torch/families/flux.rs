//! FLUX.1: one CLIP for the prompt as a whole, T5 for its words, a transformer over squares of latents, flow matching.
//! Transcribed from diffusers 0.42.1, `pipelines/flux/pipeline_flux.py`.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use serde_json::json;
use tch::{Kind, Tensor};

use super::flow_schedule::{FlowSchedule, Levels};
use super::{
    CLIP_TOKENIZERS, Conditioning, Family, Fit, Loaded, Prompts, T5_TOKENIZERS, check_components, check_fit, together,
};
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::clip::ClipTextModel;
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::diffusion::Input;
use crate::torch::lora::Layers;
use crate::torch::sampler::{Sampler, SamplerError};
use crate::torch::t5::T5Reader;
use crate::torch::tokenizer::PromptTokenizer;
use crate::torch::transformer_flux::{FluxText, FluxTransformer2DModel};
use crate::torch::vae::{AutoencoderKl, EncoderUse, VaeUse};
use crate::torch::weights::Tensors;

const COMPONENTS: [(&str, &[&str]); 6] = [
    ("text_encoder", &["CLIPTextModel"]),
    ("text_encoder_2", &["T5EncoderModel"]),
    ("tokenizer", CLIP_TOKENIZERS),
    ("tokenizer_2", T5_TOKENIZERS),
    ("transformer", &["FluxTransformer2DModel"]),
    ("vae", &["AutoencoderKL"]),
];
/// `max_sequence_length` of `__call__`.
const T5_LENGTH: u16 = 512;

#[derive(Debug)]
struct Flux {
    tokenizer: PromptTokenizer,
    text_encoder: ClipTextModel,
    t5: T5Reader,
    transformer: FluxTransformer2DModel,
    schedule: FlowSchedule,
}

/// All parts were trained in bf16, and values of some leave the range of f16.
pub(super) fn load(mut index: Config, checkpoint: &Files, placement: Placement) -> Result<Loaded, LoadError> {
    let placement = placement.with_bf16_for_f16();
    check_components(&mut index, &COMPONENTS)?;
    let none = json!([null, null]);
    index.finish(&[("image_encoder", none.clone()), ("feature_extractor", none)])?;
    let schedule = FlowSchedule::read(checkpoint)?;
    let beside = || {
        let text_encoder = ClipTextModel::load(checkpoint, "text_encoder", placement)?;
        let tokenizer = PromptTokenizer::load_clip(checkpoint, "tokenizer", text_encoder.max_length())?;
        let wanted = VaeUse { encoder: EncoderUse::IfThere, shifts: true, upcasts: false };
        let vae = AutoencoderKl::load_for(checkpoint, placement, wanted)?;
        let t5 = T5Reader::load(checkpoint, ["tokenizer_2", "text_encoder_2"], T5_LENGTH.into(), placement)?;
        Ok((text_encoder, tokenizer, vae, t5))
    };
    let ((text_encoder, tokenizer, vae, t5), transformer) =
        together(beside, || FluxTransformer2DModel::load(checkpoint, placement))?;
    let fit = |beside, wanted, option, found| Fit { beside, wanted, option, found };
    let channels = transformer.latent_channels();
    check_fit(
        "transformer/config.json",
        &[
            fit("T5's d_model", t5.hidden_size(), "joint_attention_dim", transformer.text_channels()),
            fit(
                "CLIP's hidden_size",
                text_encoder.hidden_size(),
                "pooled_projection_dim",
                transformer.pooled_channels(),
            ),
            fit("the VAE's latent_channels", vae.latent_channels(), "in_channels / 4", channels),
        ],
    )?;
    let family = Box::new(Flux { tokenizer, text_encoder, t5, transformer, schedule });
    Ok(Loaded { input: Input::Latents, family, vae })
}

impl Family for Flux {
    /// `encode_prompt`; in `pooled`, guidance stands behind what CLIP says.
    fn encode(&self, prompts: Prompts<'_>, _size: ImageSize) -> Result<Conditioning, PipelineError> {
        let rows = prompts.rows();
        let pooled = self.text_encoder.forward_pooled(&self.tokenizer.encode_all(&rows)?).to_kind(Kind::Float);
        let shape = [pooled.size()[0], 1];
        let guidance = Tensor::full(shape, f64::from(prompts.guidance_scale), (Kind::Float, pooled.device()));
        Ok(Conditioning {
            text: self.t5.encode(&rows)?,
            pooled: Some(Tensor::cat(&[pooled, guidance], 1)),
            control: None,
        })
    }

    fn predict(&self, sample: &Tensor, times: &Tensor, conditioning: &Conditioning) -> Tensor {
        let whole = conditioning.pooled.as_ref().expect("this family's encode gives it");
        let channels = self.transformer.pooled_channels();
        let (pooled, guidance) = (whole.narrow(1, 0, channels), whole.select(1, channels));
        let read = FluxText { text: &conditioning.text, pooled: &pooled, guidance: Some(&guidance) };
        self.transformer.forward(sample, times, &read)
    }

    fn sampler(&self, kind: SamplerKind, steps: u32, positions: i64) -> Result<Sampler, SamplerError> {
        let patches = positions / self.transformer.patch_size().pow(2);
        self.schedule.sampler(kind, steps, Levels::Even, patches)
    }

    /// An input of the model (dev), or learned at one value (schnell).
    fn guides_itself(&self) -> bool {
        true
    }

    fn check_latents(&self, height: i64, width: i64) -> Result<(), String> {
        let patch = self.transformer.patch_size();
        if height % patch != 0 || width % patch != 0 {
            return Err(format!("the model needs multiples of {patch} latents, not {width} by {height}"));
        }
        Ok(())
    }

    fn in_channels(&self) -> i64 {
        self.transformer.latent_channels()
    }

    fn text_length(&self) -> usize {
        T5_LENGTH.into()
    }

    /// Of T5, which reads the words.
    fn text_tokens(&self, prompt: &str) -> u32 {
        self.t5.count(prompt)
    }

    fn adaptable(&self) -> Layers {
        Layers::default().and(self.text_encoder.adaptable()).and(self.transformer.adaptable())
    }

    fn tensors(&self) -> Vec<&Tensors> {
        vec![self.text_encoder.tensors(), self.t5.tensors(), self.transformer.tensors()]
    }
}
