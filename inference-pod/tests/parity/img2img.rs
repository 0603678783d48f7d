//! Image-to-image and inpainting against diffusers' own pipelines, for every family and every sampler.

use std::sync::Arc;

use easel_api::ImageSize;
use easel_api::images::{SamplerKind, Strength, Task};
use easel_inference::pipeline::{Edit, Mask, Picture, PictureRequest, Pipeline, PipelineError, Way};
use easel_inference::torch::Diffusion;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, VAE};
use crate::golden::{Golden, max_difference};
use crate::refusals::assert_refused;
use crate::runs::{FLOW, assert_batched_as_alone, request, run};

const FEW: [SamplerKind; 3] = [SamplerKind::Ddim, SamplerKind::EulerAncestral, SamplerKind::Heun];
const MODELS: [&str; 5] = ["sd1", "sd2", "sdxl", "sd3", "flux"];
/// Of `goldens/img2img.py`.
pub(crate) const PARTS: [&str; 3] = ["image_to_image", "inpaint", "inpaint_whole"];

fn samplers(model: &str) -> Vec<SamplerKind> {
    match model {
        "sd1" => SamplerKind::ALL.into_iter().filter(|kind| *kind != FLOW).collect(),
        "sd3" | "flux" => vec![FLOW],
        _ => FEW.to_vec(),
    }
}

fn strength(value: f64) -> Strength {
    Strength::new(value).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::try_from(tensor.to_kind(Kind::Uint8).flatten(0, -1).contiguous()).unwrap()
}

fn picture(golden: &Golden, size: ImageSize) -> Arc<Picture> {
    Arc::new(Picture { size, rgb: bytes(golden.get(&format!("picture.{size}"))) })
}

fn mask(golden: &Golden, size: ImageSize) -> Arc<Mask> {
    let edited = bytes(golden.get(&format!("mask.{size}"))).into_iter().map(|value| value > 127).collect();
    Arc::new(Mask { size, edited })
}

pub(crate) fn wish(golden: &Golden, model: &str, part: &str, sampler: SamplerKind) -> PictureRequest {
    // `sd1` is the only one of its size.
    let plain = request(if model == "inpaint9" { "sd1" } else { model }, sampler);
    let size = plain.size;
    let way = match part {
        "image_to_image" => Way::ImageToImage { strength: strength(0.7) },
        "inpaint" => Way::Inpaint { mask: mask(golden, size), strength: strength(0.7) },
        _ => Way::Inpaint { mask: mask(golden, size), strength: Strength::WHOLE },
    };
    PictureRequest { steps: 5, edit: Some(Edit { picture: picture(golden, size), way }), ..plain }
}

fn assert_same(golden: &Golden, pipeline: &Diffusion, name: &str, request: &PictureRequest) {
    let expected = golden.get(name);
    let mut job = pipeline.encode(request).unwrap();
    let mut calls = 0;
    while !job.is_finished() {
        pipeline.denoise_step(&mut [&mut job]).unwrap();
        let difference = max_difference(job.latents(), &expected.get(calls).unsqueeze(0));
        assert!(difference <= 1e-4, "{name}, call {calls}: {difference:.1e}");
        calls += 1;
    }
    assert_eq!((calls, calls as u32), (expected.size()[0], request.model_calls()), "{name}");
    let drawn = pipeline.decode(&job).unwrap();
    let image = bytes(golden.get(&format!("{name}.image")));
    assert_eq!(drawn.rgb.len(), image.len());
    let worst = drawn.rgb.iter().zip(&image).map(|(found, wanted)| found.abs_diff(*wanted)).max().unwrap();
    assert!(worst <= 1, "{name}: pixels are off by {worst}");
}

#[test]
fn every_model_and_sampler_draws_a_picture_on_and_fills_a_mask_as_diffusers_does() {
    let golden = Golden::open("img2img");
    for model in MODELS {
        let pipeline = checkpoint::load(model);
        for sampler in samplers(model) {
            for part in PARTS {
                let name = format!("{model}.{part}.{sampler}");
                assert_same(&golden, &pipeline, &name, &wish(&golden, model, part, sampler));
                println!("{name}");
            }
        }
    }
}

/// With a `UNet` that is shown the mask.
fn filling() -> Checkpoint {
    let checkpoint = Checkpoint::copy_of("sd1");
    checkpoint.add("inpaint9");
    checkpoint.edit_json("model_index.json", |json| json["_class_name"] = json!("StableDiffusionInpaintPipeline"));
    checkpoint
}

#[test]
fn a_model_that_is_shown_the_mask_fills_it_as_diffusers_does_and_does_nothing_else() {
    let (golden, pipeline) = (Golden::open("img2img"), filling().load().unwrap());
    for sampler in FEW {
        for part in ["inpaint", "inpaint_whole"] {
            let request = wish(&golden, "inpaint9", part, sampler);
            assert_same(&golden, &pipeline, &format!("inpaint9.{part}.{sampler}"), &request);
        }
    }
    assert_eq!(pipeline.tasks(), [Task::Inpaint]);
    let changing = wish(&golden, "sd1", "image_to_image", SamplerKind::Ddim);
    assert!(matches!(pipeline.encode(&changing), Err(PipelineError::Unsupported(_))));
}

#[test]
fn what_lies_outside_of_the_mask_stays_to_the_bit() {
    let (golden, pipeline) = (Golden::open("img2img"), checkpoint::load("sd2"));
    let request = wish(&golden, "sd2", "inpaint_whole", SamplerKind::Euler);
    let drawn = pipeline.decode(&run(&pipeline, &request)).unwrap();
    let (before, mask) = (picture(&golden, request.size), mask(&golden, request.size));
    let pixels = drawn.rgb.chunks_exact(3).zip(before.rgb.chunks_exact(3)).zip(&mask.edited);
    let changed = |wanted: bool| pixels.clone().filter(|((new, old), edited)| **edited == wanted && new != old).count();
    assert_eq!(changed(false), 0);
    assert!(changed(true) > 500);
}

#[test]
fn pictures_that_begin_part_way_share_batches_with_those_that_do_not() {
    let (golden, pipeline) = (Golden::open("img2img"), checkpoint::load("sd1"));
    let plain = request("sd1", SamplerKind::Euler);
    let other = PictureRequest { seed: 8, steps: 6, ..wish(&golden, "sd1", "image_to_image", SamplerKind::Heun) };
    let filled = wish(&golden, "sd1", "inpaint", SamplerKind::UniPc);
    assert_eq!(pipeline.batch_key(&plain), pipeline.batch_key(&filled));
    assert_batched_as_alone(&pipeline, &[plain, other, filled]);
}

#[test]
fn a_strength_that_leaves_no_step_and_a_mask_of_another_size_are_refused() {
    let (golden, pipeline) = (Golden::open("img2img"), checkpoint::load("sd1"));
    let fine = wish(&golden, "sd1", "inpaint", SamplerKind::Ddim);
    let picture = picture(&golden, fine.size);
    let (none, other) = (strength(0.1), mask(&golden, "80x48".parse().unwrap()));
    for way in [Way::ImageToImage { strength: none }, Way::Inpaint { mask: other, strength: strength(0.7) }] {
        let edit = Some(Edit { picture: Arc::clone(&picture), way });
        let refused = pipeline.encode(&PictureRequest { edit, ..fine.clone() });
        assert!(matches!(refused, Err(PipelineError::Unsupported(_))));
    }
}

#[test]
fn a_checkpoint_without_an_encoder_draws_from_nothing_and_says_so() {
    let checkpoint = Checkpoint::copy_of("sd1");
    let needless = |key: &str| key.starts_with("encoder.") || key.starts_with("quant_conv.");
    checkpoint.edit_weights(VAE, |tensors| tensors.retain(|(key, _)| !needless(key)));
    let pipeline = checkpoint.load().unwrap();
    assert_eq!(pipeline.tasks(), [Task::Generate]);
    assert!(pipeline.memory_bytes() < checkpoint::load("sd1").memory_bytes());
}

#[test]
fn pipelines_that_only_start_in_another_way_are_read_as_those_that_draw() {
    for (model, class) in [
        ("sd1", "StableDiffusionImg2ImgPipeline"),
        ("sd2", "StableDiffusionInpaintPipeline"),
        ("sdxl", "StableDiffusionXLImg2ImgPipeline"),
        ("sdxl", "StableDiffusionXLInpaintPipeline"),
        ("sd3", "StableDiffusion3Img2ImgPipeline"),
        ("sd3", "StableDiffusion3InpaintPipeline"),
        ("flux", "FluxImg2ImgPipeline"),
        ("flux", "FluxInpaintPipeline"),
    ] {
        let checkpoint = Checkpoint::copy_of(model);
        checkpoint.edit_json("model_index.json", |json| json["_class_name"] = json!(class));
        let pipeline = checkpoint.load().unwrap();
        assert_eq!(pipeline.tasks(), [Task::Generate, Task::ImageToImage, Task::Inpaint], "{class}");
    }
}

#[test]
fn channels_that_no_pipeline_shows_are_refused_by_name() {
    let drawing = filling();
    drawing.edit_json("model_index.json", |json| json["_class_name"] = json!("StableDiffusionPipeline"));
    assert_refused(&drawing, &["unet/config.json", "'in_channels' is 9", "must be 4"]);
    let refiner = Checkpoint::copy_of("sdxl");
    refiner.edit_json("model_index.json", |json| json["requires_aesthetics_score"] = json!(true));
    assert_refused(&refiner, &["model_index.json", "requires_aesthetics_score"]);
}
