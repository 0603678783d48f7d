//! `ControlNet`: its residuals, whole pictures that are steered, batches of them, and what is refused.

use std::sync::Arc;

use easel_api::images::{ControlOptions, SamplerKind, Task};
use easel_checkpoints::Files;
use easel_inference::pipeline::{Edit, Loader, Picture, PictureRequest, Pipeline, PipelineError, Way};
use easel_inference::torch::controlnet::ControlNetModel;
use easel_inference::torch::unet::UNet2DConditionModel;
use easel_inference::torch::{DeviceChoice, Dtype, Placement, TorchLoader};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE};
use crate::golden::{Golden, max_difference};
use crate::precision::BF16_TOLERANCE;
use crate::refusals::assert_refused;
use crate::runs::{assert_batched_as_alone, assert_picture, request, run};

/// Colours in their other order; sizes that halve unevenly; pooled text and sizes, and fewer transformer blocks.
const MODELS: [&str; 3] = ["sd1", "sd2", "sdxl"];
const CONTROLNET: &str = "controlnet/diffusion_pytorch_model.safetensors";
const CONFIG: &str = "controlnet/config.json";

/// Of `goldens/controlnet.py`.
const SCALE: f32 = 0.7;

fn golden(model: &str) -> Golden {
    Golden::open(&format!("{model}_control"))
}

/// `[height, width, rgb]` bytes.
fn picture(golden: &Golden) -> Picture {
    let bytes = golden.get("picture");
    let size = format!("{}x{}", bytes.size()[1], bytes.size()[0]).parse().unwrap();
    Picture { size, rgb: Vec::try_from(bytes.flatten(0, -1)).unwrap() }
}

/// The request of `goldens/controlnet.py`.
fn wish(model: &str, sampler: SamplerKind, (start, end): (f64, f64)) -> PictureRequest {
    let picture = Arc::new(picture(&golden(model)));
    let edit = Some(Edit { picture, way: Way::Control(ControlOptions { scale: SCALE, start, end }) });
    PictureRequest { edit, ..request(model, sampler) }
}

fn steered(request: &PictureRequest, scale: f32) -> PictureRequest {
    let Some(Edit { picture, way: Way::Control(options) }) = request.edit.clone() else { panic!("nothing steers") };
    let edit = Some(Edit { picture, way: Way::Control(ControlOptions { scale, ..options }) });
    PictureRequest { edit, ..request.clone() }
}

#[test]
fn residuals_are_the_same_and_so_is_what_the_unet_makes_of_them() {
    for model in MODELS {
        let golden = golden(model);
        let checkpoint = Checkpoint::controlled(model);
        let files = Files::trusted(checkpoint.folder()).unwrap();
        let is_xl = model == "sdxl";
        let controlnet = ControlNetModel::load(&files, Placement::REFERENCE, is_xl).unwrap();
        let unet = if is_xl {
            UNet2DConditionModel::load_with_added_conditions(&files, Placement::REFERENCE).unwrap()
        } else {
            UNet2DConditionModel::load(&files, Placement::REFERENCE).unwrap()
        };
        let pixels = golden.get("picture").permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 255.0;
        let hint = controlnet.hint(&pixels);
        golden.assert_close("hint", &hint);
        let added = is_xl.then(|| unet.added_conditions(golden.get("pooled"), golden.get("time_ids")).unwrap());
        let inputs = golden.unet_inputs(golden.get("text"), added.as_ref());
        let residuals = controlnet.forward(inputs, &hint.expand([2, -1, -1, -1], false), &[SCALE, SCALE]);
        for (index, residual) in residuals.down.iter().enumerate() {
            golden.assert_close(&format!("down.{index}"), residual);
        }
        assert!(!golden.keys().any(|key| key == format!("down.{}", residuals.down.len())));
        golden.assert_close("mid", &residuals.mid);
        golden.assert_close("unet", &unet.forward(inputs, Some(&residuals)));
    }
}

#[test]
fn latents_are_the_same_after_every_model_call_and_so_is_the_picture() {
    let all = (0.0, 1.0);
    let runs = [
        ("sd1", "ddim", wish("sd1", SamplerKind::Ddim, all)),
        ("sd1", "heun", wish("sd1", SamplerKind::Heun, (0.2, 0.7))),
        ("sd2", "euler", wish("sd2", SamplerKind::Euler, all)),
        ("sd2", "plain", PictureRequest { guidance_scale: 1.0, ..wish("sd2", SamplerKind::Ddim, all) }),
        ("sdxl", "ddim", wish("sdxl", SamplerKind::Ddim, (0.0, 0.5))),
        ("sdxl", "euler", wish("sdxl", SamplerKind::Euler, all)),
    ];
    for (model, name, request) in runs {
        let (golden, pipeline) = (golden(model), Checkpoint::controlled(model).load().unwrap());
        let mut job = pipeline.encode(&request).unwrap();
        let mut kept = Vec::new();
        while !job.is_finished() {
            pipeline.denoise_step(&mut [&mut job]).unwrap();
            kept.push(job.latents().shallow_clone());
        }
        golden.assert_close(&format!("{name}.latents"), &Tensor::cat(&kept, 0));
        assert_picture(&pipeline.decode(&job).unwrap(), golden.get(&format!("{name}.image")));
    }
}

#[test]
fn jobs_that_are_steered_differently_share_a_step_and_end_as_they_do_alone() {
    for model in MODELS {
        let pipeline = Checkpoint::controlled(model).load().unwrap();
        let first = wish(model, SamplerKind::Ddim, (0.0, 1.0));
        let second = PictureRequest { seed: 8, steps: 6, ..steered(&first, 1.3) };
        let mut third = steered(&first, 0.2);
        let other = third.edit.as_mut().unwrap();
        let mut mirrored = (*other.picture).clone();
        mirrored.rgb.reverse();
        *other = Edit {
            picture: Arc::new(mirrored),
            way: Way::Control(ControlOptions { scale: 0.2, start: 0.0, end: 0.5 }),
        };
        let keys = [&first, &second, &third].map(|request| pipeline.batch_key(request));
        assert_eq!(keys, [keys[0]; 3]);
        assert_batched_as_alone(&pipeline, &[first, second, third]);
    }
}

#[test]
fn a_picture_that_does_not_count_draws_as_the_model_draws_without_its_controlnet() {
    let (with, without) = (Checkpoint::controlled("sd2").load().unwrap(), checkpoint::load("sd2"));
    let first = wish("sd2", SamplerKind::Ddim, (0.0, 1.0));
    let plain = run(&without, &PictureRequest { edit: None, ..first.clone() });
    assert_eq!(run(&with, &steered(&first, 0.0)).latents(), plain.latents());
    assert!(max_difference(run(&with, &first).latents(), plain.latents()) > 0.1);
}

#[test]
fn a_controlnet_needs_a_picture_and_a_model_without_one_is_not_steered() {
    let (steers, draws, edits) =
        (Checkpoint::controlled("sd1").load().unwrap(), checkpoint::load("sd1"), checkpoint::load("edit4"));
    assert_eq!(steers.tasks(), [Task::Control]);
    let with = wish("sd1", SamplerKind::Ddim, (0.0, 1.0));
    let without = PictureRequest { edit: None, ..with.clone() };
    let other_size = PictureRequest { size: "48x64".parse().unwrap(), ..with.clone() };
    let cases = [
        (&steers, &without, "steers"),
        (&steers, &other_size, "equal"),
        (&draws, &with, "ControlNet"),
        (&edits, &with, "ControlNet"),
    ];
    for (pipeline, request, word) in cases {
        let error = pipeline.encode(request).unwrap_err();
        assert!(matches!(&error, PipelineError::Unsupported(text) if text.contains(word)), "{error:?}");
    }
}

#[test]
fn bf16_is_steered_nearly_the_same() {
    let placement = Placement::choose(DeviceChoice::Cpu, Dtype::Bf16).unwrap();
    let checkpoint = Checkpoint::controlled("sdxl");
    let brief = TorchLoader::new(placement).load(&Files::trusted(checkpoint.folder()).unwrap()).unwrap();
    let request = wish("sdxl", SamplerKind::Ddim, (0.0, 1.0));
    let (whole, brief) = (run(&checkpoint.load().unwrap(), &request), run(&brief, &request));
    let spread = whole.latents().std(false).double_value(&[]);
    let difference = max_difference(whole.latents(), brief.latents()) / spread;
    println!("bf16 against f32: max difference {difference:.1e} standard deviations");
    assert!(difference <= BF16_TOLERANCE);
}

#[test]
fn every_part_is_counted() {
    for model in MODELS {
        let checkpoint = Checkpoint::controlled(model);
        let files = [TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE, CONTROLNET].map(|file| checkpoint.path(file));
        let parts = files.iter().filter(|path| path.exists()).map(|path| {
            let tensors = Tensor::read_safetensors(path).unwrap();
            // The half of the VAE that encodes is not read, nor are positions, which are counted.
            let is_idle = |key: &str| {
                (path.ends_with(VAE) && (key.starts_with("encoder.") || key.starts_with("quant_conv.")))
                    || key.ends_with("position_ids")
            };
            tensors.iter().filter(|(key, _)| !is_idle(key)).map(|(_, tensor)| tensor.numel() as u64).sum::<u64>()
        });
        assert_eq!(checkpoint.load().unwrap().memory_bytes(), 4 * parts.sum::<u64>(), "{model}");
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let several = json!(["pipelines.controlnet.multicontrolnet", "MultiControlNetModel"]);
    let cases = [
        ("model_index.json", "controlnet", several, "MultiControlNetModel"),
        ("model_index.json", "controlnet", json!(null), "'controlnet' is missing"),
        (CONFIG, "global_pool_conditions", json!(true), "true"),
        (CONFIG, "controlnet_conditioning_channel_order", json!("gbr"), "gbr"),
        (CONFIG, "conditioning_channels", json!(4), "4"),
        (CONFIG, "conditioning_embedding_out_channels", json!([]), "[]"),
        (CONFIG, "mid_block_type", json!("UNetMidBlock2D"), "UNetMidBlock2D"),
        (CONFIG, "class_embed_type", json!("timestep"), "timestep"),
        (CONFIG, "addition_embed_type", json!("text_time"), "text_time"),
        (CONFIG, "encoder_hid_dim", json!(8), "8"),
        (CONFIG, "an_option_of_next_year", json!(1), "1"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = Checkpoint::controlled("sd1");
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, key, word]);
    }
}

#[test]
fn a_controlnet_of_another_model_is_refused() {
    let checkpoint = Checkpoint::controlled("sd1");
    copy_controlnet("sd2", &checkpoint);
    assert_refused(&checkpoint, &[CONFIG, "block_out_channels", "unet/config.json"]);
    let checkpoint = Checkpoint::controlled("sdxl");
    copy_controlnet("sd2", &checkpoint);
    assert_refused(&checkpoint, &[CONFIG, "addition_embed_type"]);
    let checkpoint = Checkpoint::controlled("sd1");
    checkpoint.edit_json("model_index.json", |json| json["_class_name"] = json!("StableDiffusionPipeline"));
    assert_refused(&checkpoint, &["model_index.json", "controlnet"]);
    std::fs::remove_dir_all(checkpoint.path("controlnet")).unwrap();
    checkpoint.edit_json("model_index.json", |json| json["_class_name"] = json!("StableDiffusionControlNetPipeline"));
    assert_refused(&checkpoint, &["controlnet/config.json is missing"]);
}

fn copy_controlnet(from: &str, to: &Checkpoint) {
    let from = Checkpoint::controlled(from);
    for file in [CONFIG, CONTROLNET] {
        std::fs::copy(from.path(file), to.path(file)).unwrap();
    }
}

#[test]
fn layers_that_halve_a_picture_to_another_size_than_the_vae_are_refused() {
    let checkpoint = Checkpoint::controlled("sd1");
    checkpoint.edit_json(CONFIG, |json| json["conditioning_embedding_out_channels"] = json!([8, 8]));
    checkpoint.edit_weights(CONTROLNET, |tensors| {
        let is_last = |key: &str| key.contains("cond_embedding.blocks.2") || key.contains("cond_embedding.blocks.3");
        tensors.retain(|(key, _)| !is_last(key));
        let (_, out) = tensors.iter_mut().find(|(key, _)| key.ends_with("cond_embedding.conv_out.weight")).unwrap();
        *out = out.narrow(1, 0, 8).copy();
    });
    assert_refused(&checkpoint, &[CONFIG, "conditioning_embedding_out_channels", "1/2", "1/4"]);
}
