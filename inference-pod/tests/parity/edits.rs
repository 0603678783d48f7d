//! `InstructPix2Pix`: the VAE's encoder, a `UNet` that sees the picture, whole edits, and what they refuse.

use std::sync::Arc;

use easel_api::images::{SamplerKind, Task};
use easel_inference::pipeline::{Edit, Picture, PictureRequest, Pipeline, PipelineError, Way};
use easel_inference::torch::Placement;
use easel_inference::torch::diffusion::Job;
use easel_inference::torch::unet::UNet2DConditionModel;
use easel_inference::torch::vae::AutoencoderKl;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint};
use crate::golden::{self, Golden, max_difference};
use crate::refusals::assert_refused;
use crate::runs::{assert_picture, request, run};

/// 4 + 4 channels with Euler's schedule; 16 + 16 with DDIM's, and no `quant_conv`.
const MODELS: [&str; 2] = ["edit4", "edit16"];

/// `[height, width, rgb]` bytes.
fn picture(golden: &Golden) -> Picture {
    let bytes = golden.get("picture");
    let size = format!("{}x{}", bytes.size()[1], bytes.size()[0]).parse().unwrap();
    Picture { size, rgb: Vec::try_from(bytes.flatten(0, -1)).unwrap() }
}

/// The request of `goldens/make.py`.
fn edit_request(golden: &Golden, sampler: SamplerKind) -> PictureRequest {
    let picture = Arc::new(picture(golden));
    let size = picture.size;
    let edit = Some(Edit { picture, way: Way::Instruct { image_guidance_scale: 1.5 } });
    PictureRequest { size, edit, ..request("sd1", sampler) }
}

#[test]
fn the_vae_encodes_the_same_and_in_the_likeliest_way() {
    for model in MODELS {
        let golden = Golden::open(model);
        let files = golden::files(model);
        let vae = AutoencoderKl::load_with_encoder(&files, Placement::REFERENCE).unwrap();
        let pixels = golden.get("picture").permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 127.5 - 1.0;
        golden.assert_close("encoded", &vae.encode(&pixels).unwrap());
        assert!(AutoencoderKl::load(&files, Placement::REFERENCE).unwrap().encode(&pixels).is_none());
    }
}

#[test]
fn the_unet_that_sees_a_picture_computes_the_same() {
    for model in MODELS {
        let golden = Golden::open(model);
        let unet = UNet2DConditionModel::load(&golden::files(model), Placement::REFERENCE).unwrap();
        golden.assert_close("unet", &unet.forward(golden.unet_inputs(golden.get("text"), None), None));
    }
}

#[test]
fn edits_have_the_same_latents_after_every_step_and_the_same_picture() {
    for model in MODELS {
        let (golden, pipeline) = (Golden::open(model), checkpoint::load(model));
        let plain = PictureRequest { guidance_scale: 1.0, ..edit_request(&golden, SamplerKind::Ddim) };
        let runs = [
            ("ddim", edit_request(&golden, SamplerKind::Ddim)),
            ("euler", edit_request(&golden, SamplerKind::Euler)),
            ("plain", plain),
        ];
        for (name, request) in runs {
            let mut job = pipeline.encode(&request).unwrap();
            for step in 0..4 {
                pipeline.denoise_step(&mut [&mut job]).unwrap();
                golden.assert_close(&format!("{name}.latents.{step}"), job.latents());
            }
            assert_picture(&pipeline.decode(&job).unwrap(), golden.get(&format!("{name}.image")));
        }
    }
}

#[test]
fn an_edit_in_a_batch_ends_as_it_does_alone() {
    let (golden, pipeline) = (Golden::open("edit16"), checkpoint::load("edit16"));
    let first = edit_request(&golden, SamplerKind::Ddim);
    let mut other = picture(&golden);
    other.rgb.reverse();
    let other = Some(Edit { picture: Arc::new(other), way: Way::Instruct { image_guidance_scale: 2.0 } });
    let second = PictureRequest { seed: 8, prompt: "red apple".into(), edit: other, ..first.clone() };
    let alone = [&first, &second].map(|request| run(&pipeline, request));
    let mut batch = [&first, &second].map(|request| pipeline.encode(request).unwrap());
    while !batch[0].is_finished() {
        let mut jobs: Vec<&mut Job> = batch.iter_mut().collect();
        pipeline.denoise_step(&mut jobs).unwrap();
    }
    for (batched, alone) in batch.iter().zip(&alone) {
        let scale = alone.latents().abs().max().double_value(&[]).max(1.0);
        assert!(max_difference(batched.latents(), alone.latents()) / scale <= 1e-5);
    }
}

#[test]
fn jobs_with_and_without_guidance_do_not_share_a_step() {
    let (golden, pipeline) = (Golden::open("edit4"), checkpoint::load("edit4"));
    let guided = edit_request(&golden, SamplerKind::Euler);
    let key = pipeline.batch_key(&guided);
    assert_eq!((key.input_channels, key.height, key.width, key.rows), (8, 12, 16, 3));
    let plain = PictureRequest { guidance_scale: 1.0, ..guided };
    assert_eq!(pipeline.batch_key(&plain).rows, 1);
}

#[test]
fn a_model_that_edits_needs_a_picture_and_one_that_does_not_takes_none() {
    let golden = Golden::open("edit4");
    let (edits, draws) = (checkpoint::load("edit4"), checkpoint::load("sd1"));
    assert_eq!(edits.tasks(), [Task::Instruct]);
    assert_eq!(draws.tasks(), [Task::Generate, Task::ImageToImage, Task::Inpaint]);
    let with = edit_request(&golden, SamplerKind::Ddim);
    let without = PictureRequest { edit: None, ..with.clone() };
    let other_size = PictureRequest { size: "48x64".parse().unwrap(), ..with.clone() };
    for (pipeline, request) in [(&draws, &with), (&edits, &without), (&edits, &other_size)] {
        assert!(matches!(pipeline.encode(request), Err(PipelineError::Unsupported(_))));
    }
}

#[test]
fn channels_that_do_not_fit_the_task_are_refused_by_name() {
    let drawing = Checkpoint::copy_of("sd1");
    let class = json!("StableDiffusionInstructPix2PixPipeline");
    drawing.edit_json("model_index.json", |json| json["_class_name"] = class);
    assert_refused(&drawing, &["unet/config.json", "'in_channels' is 4", "twice the VAE's latent_channels", "8"]);
    let editing = Checkpoint::copy_of("edit4");
    editing.edit_json("model_index.json", |json| json["_class_name"] = json!("StableDiffusionPipeline"));
    assert_refused(&editing, &["unet/config.json", "'in_channels' is 8", "must be 4"]);
}

#[test]
fn an_encoder_of_another_shape_is_refused_where_it_is_used() {
    let spoil = |checkpoint: Checkpoint| {
        checkpoint.edit_weights(checkpoint::VAE, |tensors| {
            let (_, weight) = tensors.iter_mut().find(|(key, _)| key == "encoder.conv_in.weight").unwrap();
            *weight = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        });
        checkpoint
    };
    for model in ["edit4", "sd1"] {
        let words = [checkpoint::VAE, "'encoder.conv_in.weight'", "[1]", "[8, 3, 3, 3]"];
        assert_refused(&spoil(Checkpoint::copy_of(model)), &words);
    }
    spoil(Checkpoint::controlled("sd1")).load().unwrap();
}
