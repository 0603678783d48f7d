//! FLUX.1: a transformer over squares of latents that is told guidance, two text encoders, and what is refused.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_inference::pipeline::{PictureRequest, Pipeline, PipelineError};
use easel_inference::torch::Placement;
use easel_inference::torch::clip::ClipTextModel;
use easel_inference::torch::tokenizer::PromptTokenizer;
use easel_inference::torch::transformer_flux::{FluxText, FluxTransformer2DModel};
use easel_inference::torch::vae::{AutoencoderKl, VaeUse};
use serde_json::json;
use tch::Tensor;

use crate::checkpoint::{self, Checkpoint, TEXT_ENCODER, VAE};
use crate::golden::{self, Golden, max_difference};
use crate::refusals::assert_refused;
use crate::runs::{FLOW, assert_batched_as_alone, assert_picture, request, run};

const TEXT_ENCODER_2: &str = "text_encoder_2/model.safetensors";
const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";

/// The request of `goldens/flux.py`; its size is that of `sd2`. There is a negative prompt, which shall mean nothing.
fn wish() -> PictureRequest {
    PictureRequest { guidance_scale: 3.5, ..request("sd2", FLOW) }
}

fn schnell() -> Checkpoint {
    let checkpoint = Checkpoint::copy_of("flux");
    checkpoint.add("flux_schnell");
    checkpoint
}

#[test]
fn clip_reads_the_prompt_as_a_whole() {
    let files = golden::files("flux");
    let text_encoder = ClipTextModel::load(&files, "text_encoder", Placement::REFERENCE).unwrap();
    let tokenizer = PromptTokenizer::load_clip(&files, "tokenizer", text_encoder.max_length()).unwrap();
    let tokens = tokenizer.encode_all(&golden::prompts()[..2]).unwrap();
    Golden::open("flux").assert_close("pooled", &text_encoder.forward_pooled(&tokens));
}

#[test]
fn the_transformers_with_and_without_guidance_compute_the_same_for_a_batch_at_two_times() {
    let golden = Golden::open("flux");
    let (sample, times) = (golden.get("sample"), golden.get("times"));
    for (model, guidance) in [("flux", Some(golden.get("guidance"))), ("flux_schnell", None)] {
        let transformer = FluxTransformer2DModel::load(&golden::files(model), Placement::REFERENCE).unwrap();
        let read = FluxText { text: golden.get("text"), pooled: golden.get("pooled"), guidance };
        Golden::open(model).assert_close("transformer", &transformer.forward(sample, times, &read));
    }
}

#[test]
fn the_vae_shifts_and_decodes_the_same() {
    let golden = Golden::open("flux");
    let shifts = VaeUse { shifts: true, ..VaeUse::default() };
    let vae = AutoencoderKl::load_for(&golden::files("flux"), Placement::REFERENCE, shifts).unwrap();
    golden.assert_close("decoded", &vae.decode(&golden.get("sample").narrow(0, 0, 1)));
}

#[test]
fn latents_are_the_same_after_every_step_and_so_is_the_picture() {
    for (name, pipeline) in [("flux", checkpoint::load("flux")), ("flux_schnell", schnell().load().unwrap())] {
        let golden = Golden::open(name);
        let mut job = pipeline.encode(&wish()).unwrap();
        for step in 0..4 {
            pipeline.denoise_step(&mut [&mut job]).unwrap();
            golden.assert_close(&format!("latents.{step}"), job.latents());
        }
        assert_picture(&pipeline.decode(&job).unwrap(), golden.get("image"));
    }
}

#[test]
fn jobs_of_different_guidance_share_a_step_and_end_as_they_do_alone() {
    let pipeline = checkpoint::load("flux");
    let first = wish();
    let second = PictureRequest { seed: 8, steps: 6, guidance_scale: 1.0, ..wish() };
    let third = PictureRequest { prompt: "red apple".into(), guidance_scale: 7.0, ..wish() };
    assert_eq!(pipeline.batch_key(&first), pipeline.batch_key(&second));
    assert_batched_as_alone(&pipeline, &[first, second, third]);
}

#[test]
fn guidance_moves_the_picture_of_a_model_that_is_told_it_and_no_other() {
    let moved = |pipeline: &_| {
        let latents = [1.0, 7.0].map(|guidance_scale| {
            run(pipeline, &PictureRequest { guidance_scale, ..wish() }).latents().shallow_clone()
        });
        max_difference(&latents[0], &latents[1])
    };
    assert!(moved(&checkpoint::load("flux")) > 0.01);
    assert!(moved(&schnell().load().unwrap()) <= 0.0);
}

#[test]
fn a_negative_prompt_is_not_read() {
    let pipeline = checkpoint::load("flux");
    let without = PictureRequest { negative_prompt: String::new(), ..wish() };
    assert_eq!(run(&pipeline, &wish()).latents(), run(&pipeline, &without).latents());
}

#[test]
fn every_part_is_counted_and_the_key_tells_what_can_share_a_step() {
    let pipeline = checkpoint::load("flux");
    let parts = [TEXT_ENCODER, TEXT_ENCODER_2, TRANSFORMER, VAE].map(|file| {
        let tensors = Tensor::read_safetensors(golden::folder().join("flux").join(file)).unwrap();
        tensors.iter().map(|(_, tensor)| tensor.numel() as u64).sum::<u64>()
    });
    assert_eq!(pipeline.memory_bytes(), 4 * parts.iter().sum::<u64>());
    let key = pipeline.batch_key(&wish());
    assert_eq!((key.input_channels, key.height, key.width, key.text_length, key.rows), (16, 12, 20, 512, 1));
    assert_eq!(pipeline.text_tokens(""), 1);
}

#[test]
fn requests_that_can_t_be_drawn_are_refused_with_a_reason() {
    let pipeline = checkpoint::load("flux");
    let odd = PictureRequest { size: ImageSize::new(80, 48).unwrap(), sampler: SamplerKind::Euler, ..wish() };
    let reason = "euler can't draw with a model trained by flow matching; use flow_match_euler";
    let error = pipeline.encode(&odd).unwrap_err();
    assert!(matches!(&error, PipelineError::Unsupported(text) if text == reason), "{error:?}");
}

#[test]
fn what_is_missing_or_of_another_kind_is_refused_by_name() {
    let (index, transformer) = ("model_index.json", "transformer/config.json");
    let cases = [
        (index, "text_encoder_2", json!(["transformers", "CLIPTextModel"]), "CLIPTextModel"),
        (index, "image_encoder", json!(["transformers", "CLIPVisionModel"]), "CLIPVisionModel"),
        (index, "transformer", json!(["diffusers", "SD3Transformer2DModel"]), "SD3Transformer2DModel"),
        (transformer, "axes_dims_rope", json!([4, 8, 8]), "[4, 8, 8]"),
        (transformer, "axes_dims_rope", json!([5, 7, 4]), "[5, 7, 4]"),
        (transformer, "in_channels", json!(62), "62"),
        (transformer, "out_channels", json!(32), "32"),
        (transformer, "patch_size", json!(2), "2"),
        ("vae/config.json", "shift_factor", json!(null), "is missing"),
        ("scheduler/scheduler_config.json", "invert_sigmas", json!(true), "true"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = Checkpoint::copy_of("flux");
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, key, word]);
    }
    let checkpoint = Checkpoint::copy_of("flux");
    for file in ["config.json", "model.safetensors"] {
        let wide = golden::folder().join("sd3t5/text_encoder_3").join(file);
        std::fs::copy(wide, checkpoint.path("text_encoder_2").join(file)).unwrap();
    }
    assert_refused(&checkpoint, &["'joint_attention_dim' is 40", "T5's d_model", "64"]);
}
