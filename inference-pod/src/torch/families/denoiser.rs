//! The `UNet` of a family and, where the class has one, its `ControlNet`: one prediction of both.
//! Knows what the two promise each other; does not know prompts or samplers.

use easel_checkpoints::Files;
use tch::Tensor;

use super::{Conditioning, Fit, check_fit, together};
use crate::pipeline::LoadError;
use crate::torch::controlnet::ControlNetModel;
use crate::torch::device::Placement;
use crate::torch::unet::{UNet2DConditionModel, UNetInputs};
use crate::torch::vae::AutoencoderKl;
use crate::torch::weights::Tensors;

pub(super) const CONTROLNET: (&str, &[&str]) = ("controlnet", &["ControlNetModel"]);

#[derive(Debug)]
pub(super) struct Denoiser {
    pub(super) unet: UNet2DConditionModel,
    controlnet: Option<ControlNetModel>,
}

/// What a checkpoint's class says of its denoiser.
#[derive(Clone, Copy, Debug)]
pub(super) struct DenoiserKind {
    /// Whether it is told pooled text and sizes.
    pub(super) adds: bool,
    /// Whether a picture steers it.
    pub(super) steered: bool,
}

impl Denoiser {
    pub(super) fn load(checkpoint: &Files, placement: Placement, kind: DenoiserKind) -> Result<Self, LoadError> {
        let DenoiserKind { adds, steered } = kind;
        let controlnet = || steered.then(|| ControlNetModel::load(checkpoint, placement, adds)).transpose();
        let unet = || {
            if adds {
                UNet2DConditionModel::load_with_added_conditions(checkpoint, placement)
            } else {
                UNet2DConditionModel::load(checkpoint, placement)
            }
        };
        let (controlnet, unet) = together(controlnet, unet)?;
        Ok(Self { unet, controlnet })
    }

    /// What the `ControlNet` promises `UNet` and VAE. What the `UNet` promises the rest is checked by its family.
    pub(super) fn check_control(&self, vae: &AutoencoderKl) -> Result<(), LoadError> {
        let Some(controlnet) = &self.controlnet else {
            return Ok(());
        };
        let (file, unet) = ("controlnet/config.json", &self.unet);
        let fit = |beside, wanted, option, found| Fit { beside, wanted, option, found };
        check_fit(
            file,
            &[
                fit("the UNet's", unet.in_channels(), "in_channels", controlnet.in_channels()),
                fit("the UNet's", unet.text_channels(), "cross_attention_dim", controlnet.text_channels()),
                fit(
                    "the UNet's",
                    unet.added_channels(),
                    "projection_class_embeddings_input_dim",
                    controlnet.added_channels(),
                ),
            ],
        )?;
        if controlnet.factor() != vae.factor() {
            let text =
                "'conditioning_embedding_out_channels' has one layer and one more for each halving of the picture:";
            let (halved, latent) = (controlnet.factor(), vae.factor());
            let text = format!("{file}: {text} to 1/{halved}, where the VAE's latents are 1/{latent}");
            return Err(LoadError::Unsupported(text));
        }
        if !controlnet.fits(unet) {
            let text = "'block_out_channels', 'layers_per_block' and the added conditions must be those of \
                        unet/config.json, whose skips it adds to";
            return Err(LoadError::Unsupported(format!("{file}: {text}")));
        }
        Ok(())
    }

    /// See [`super::Family::hint`].
    pub(super) fn hint(&self, picture: &Tensor) -> Option<Tensor> {
        self.controlnet.as_ref().map(|controlnet| controlnet.hint(picture))
    }

    /// See [`super::Family::predict`].
    pub(super) fn predict(&self, sample: &Tensor, times: &Tensor, conditioning: &Conditioning) -> Tensor {
        let Conditioning { text, pooled, control } = conditioning;
        let inputs = UNetInputs { sample, times, text, added: pooled.as_ref() };
        let residuals = match (&self.controlnet, control) {
            (Some(controlnet), Some(control)) if control.works() => {
                Some(controlnet.forward(inputs, &control.hint, &control.scales))
            }
            _ => None,
        };
        self.unet.forward(inputs, residuals.as_ref())
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensors> {
        [self.unet.tensors()].into_iter().chain(self.controlnet.as_ref().map(ControlNetModel::tensors))
    }
}
