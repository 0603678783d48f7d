//! Stable Diffusion 3 and 3.5: two CLIPs with projections, T5 or zeros, a transformer over patches, flow matching.
//! Transcribed from diffusers 0.42.1, `pipeline_stable_diffusion_3.py`.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use serde_json::json;
use tch::{Device, Tensor};

use super::flow_schedule::{FlowSchedule, Levels};
use super::{
    CLIP_TOKENIZERS, Conditioning, Family, Fit, Loaded, Prompts, T5_TOKENIZERS, check_components, check_fit, together,
};
use crate::pipeline::{LoadError, PipelineError};
use crate::torch::clip::{ClipPair, ClipTextModel};
use crate::torch::config::Config;
use crate::torch::device::Placement;
use crate::torch::diffusion::Input;
use crate::torch::lora::Layers;
use crate::torch::sampler::{Sampler, SamplerError};
use crate::torch::t5::T5Reader;
use crate::torch::transformer_sd3::{SD3Transformer2DModel, Text};
use crate::torch::vae::{AutoencoderKl, EncoderUse, VaeUse};
use crate::torch::weights::Tensors;

const COMPONENTS: [(&str, &[&str]); 6] = [
    ("text_encoder", &["CLIPTextModelWithProjection"]),
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer", CLIP_TOKENIZERS),
    ("tokenizer_2", CLIP_TOKENIZERS),
    ("transformer", &["SD3Transformer2DModel"]),
    ("vae", &["AutoencoderKL"]),
];
/// `max_sequence_length` of `__call__`.
const T5_LENGTH: u16 = 256;

#[derive(Debug)]
struct StableDiffusion3 {
    clips: ClipPair,
    /// The model was trained to do without too.
    t5: Option<T5Reader>,
    transformer: SD3Transformer2DModel,
    schedule: FlowSchedule,
    on_cpu: bool,
}

pub(super) fn load(mut index: Config, checkpoint: &Files, placement: Placement) -> Result<Loaded, LoadError> {
    check_components(&mut index, &COMPONENTS)?;
    let has_t5 = has_t5(&mut index)?;
    let none = json!([null, null]);
    index.finish(&[("image_encoder", none.clone()), ("feature_extractor", none)])?;
    let schedule = FlowSchedule::read(checkpoint)?;
    let beside = || {
        let text_encoders = [
            ClipTextModel::load_with_projection(checkpoint, "text_encoder", placement)?,
            ClipTextModel::load_with_projection(checkpoint, "text_encoder_2", placement)?,
        ];
        let clips = ClipPair::load(checkpoint, text_encoders)?;
        let t5 = || T5Reader::load(checkpoint, ["tokenizer_3", "text_encoder_3"], T5_LENGTH.into(), placement);
        let t5 = has_t5.then(t5).transpose()?;
        let wanted = VaeUse { encoder: EncoderUse::IfThere, shifts: true, upcasts: false };
        let vae = AutoencoderKl::load_for(checkpoint, placement, wanted)?;
        Ok((clips, t5, vae))
    };
    let ((clips, t5, vae), transformer) = together(beside, || SD3Transformer2DModel::load(checkpoint, placement))?;
    fit(&clips, t5.as_ref(), &vae, &transformer)?;
    Ok(Loaded {
        input: Input::Latents,
        family: Box::new(StableDiffusion3 {
            clips,
            t5,
            transformer,
            schedule,
            on_cpu: placement.device == Device::Cpu,
        }),
        vae,
    })
}

/// A checkpoint that leaves it out says `[null, null]`, or nothing.
fn has_t5(index: &mut Config) -> Result<bool, LoadError> {
    let (_library, class): (Option<String>, Option<String>) = index.take_or("text_encoder_3", (None, None))?;
    match class.as_deref() {
        None => {
            index.ignore(&["tokenizer_3"]);
            Ok(false)
        }
        Some("T5EncoderModel") => check_components(index, &[("tokenizer_3", T5_TOKENIZERS)]).map(|()| true),
        Some(other) => Err(index.unsupported("text_encoder_3", other)),
    }
}

fn fit(
    clips: &ClipPair,
    t5: Option<&T5Reader>,
    vae: &AutoencoderKl,
    transformer: &SD3Transformer2DModel,
) -> Result<(), LoadError> {
    let (file, latents) = ("transformer/config.json", vae.latent_channels());
    let (text, room) = (clips.hidden_size(), transformer.text_channels());
    if text > room {
        return Err(LoadError::Unsupported(format!(
            "{file}: 'joint_attention_dim' is {room}; both text encoders' hidden_size is {text}, which must fit in"
        )));
    }
    let fit = |beside, wanted, option, found| Fit { beside, wanted, option, found };
    let pooled = (clips.pooled_size(), transformer.pooled_channels());
    check_fit(
        file,
        &[
            fit("both text encoders' projection_dim", pooled.0, "pooled_projection_dim", pooled.1),
            fit("T5's d_model", t5.map_or(room, T5Reader::hidden_size), "joint_attention_dim", room),
            fit("the VAE's latent_channels", latents, "in_channels", transformer.in_channels()),
            fit("the VAE's latent_channels", latents, "out_channels", transformer.out_channels()),
        ],
    )
}

impl StableDiffusion3 {
    /// Vectors of T5, or of the zeros in its place. They are equal, so one is enough on a CPU; libtorch's fastest attention
    /// on GPUs takes no bias, and so they get them all.
    fn t5_length(&self) -> i64 {
        if self.t5.is_none() && self.on_cpu { 1 } else { i64::from(T5_LENGTH) }
    }
}

impl Family for StableDiffusion3 {
    /// `encode_prompt`: both CLIPs side by side, padded to the transformer's width, and after them T5 or as many zeros, of
    /// which one stands for all where it can.
    fn encode(&self, prompts: Prompts<'_>, _size: ImageSize) -> Result<Conditioning, PipelineError> {
        let prompts = prompts.rows();
        let read = self.clips.encode(&prompts)?;
        let (rows, channels) = (read.hidden.size()[0], self.transformer.text_channels());
        let clip = read.hidden.constant_pad_nd([0, channels - read.hidden.size()[2]]); // [rows, length, channels]
        let t5 = match &self.t5 {
            Some(t5) => t5.encode(&prompts)?.to_kind(clip.kind()),
            None => Tensor::zeros([rows, self.t5_length(), channels], (clip.kind(), clip.device())),
        };
        Ok(Conditioning { text: Tensor::cat(&[clip, t5], 1), pooled: Some(read.pooled), control: None })
    }

    fn predict(&self, sample: &Tensor, times: &Tensor, conditioning: &Conditioning) -> Tensor {
        let pooled = conditioning.pooled.as_ref().expect("this family's encode gives it");
        let text = Text { vectors: &conditioning.text, last_counts: i64::from(T5_LENGTH) / self.t5_length() };
        self.transformer.forward(sample, times, text, pooled)
    }

    fn sampler(&self, kind: SamplerKind, steps: u32, positions: i64) -> Result<Sampler, SamplerError> {
        let patches = positions / self.transformer.patch_size().pow(2);
        self.schedule.sampler(kind, steps, Levels::Trained, patches)
    }

    /// Whole patches, and no more of them than there are positions for.
    fn check_latents(&self, height: i64, width: i64) -> Result<(), String> {
        let (patch, max) = (self.transformer.patch_size(), self.transformer.max_side());
        if height % patch != 0 || width % patch != 0 {
            return Err(format!("the model needs multiples of {patch} latents, not {width} by {height}"));
        }
        if height.max(width) > max {
            return Err(format!("the model has positions for {max} by {max} latents, not {width} by {height}"));
        }
        Ok(())
    }

    fn in_channels(&self) -> i64 {
        self.transformer.in_channels()
    }

    fn text_length(&self) -> usize {
        self.clips.length() + self.t5_length() as usize
    }

    fn text_tokens(&self, prompt: &str) -> u32 {
        self.clips.count(prompt)
    }

    fn adaptable(&self) -> Layers {
        self.clips.adaptable().and(self.transformer.adaptable())
    }

    fn tensors(&self) -> Vec<&Tensors> {
        let t5 = self.t5.as_ref().map(T5Reader::tensors);
        self.clips.tensors().chain(t5).chain([self.transformer.tensors()]).collect()
    }
}
