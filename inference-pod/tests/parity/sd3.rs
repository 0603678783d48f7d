//! Stable Diffusion 3: two text encoders with projections, a transformer over patches, flow matching, and what is
//! refused.

use easel_api::ImageSize;
use easel_inference::pipeline::{PictureRequest, Pipeline, PipelineError};
use easel_inference::torch::Placement;
use easel_inference::torch::clip::{ClipPair, ClipTextModel};
use easel_inference::torch::transformer_sd3::{SD3Transformer2DModel, Text};
use easel_inference::torch::vae::{AutoencoderKl, VaeUse};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, TEXT_ENCODER, VAE};
use crate::golden::{self, Golden};
use crate::refusals::assert_refused;
use crate::runs::{FLOW, assert_batched_as_alone, assert_picture, request, run};

const TEXT_ENCODER_2: &str = "text_encoder_2/model.safetensors";
const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
/// Vectors of zeros where T5 would stand.
const T5_LENGTH: i64 = 256;

/// The request of `goldens/sd3.py`; its size is that of `sd2`.
fn wish() -> PictureRequest {
    request("sd2", FLOW)
}

/// `[2, 280, 64]`: the golden holds the first 25 vectors, of which the last is T5's first.
fn text(golden: &Golden) -> Tensor {
    let kept = golden.get("text");
    assert!(kept.narrow(1, 24, 1).abs().max().double_value(&[]) <= 0.0);
    Tensor::cat(&[kept, &Tensor::zeros([2, T5_LENGTH - 1, 64], (Kind::Float, tch::Device::Cpu))], 1)
}

#[test]
fn both_text_encoders_read_and_both_are_projected() {
    let (golden, files) = (Golden::open("sd3"), golden::files("sd3"));
    let load = |part| ClipTextModel::load_with_projection(&files, part, Placement::REFERENCE).unwrap();
    let clips = ClipPair::load(&files, [load("text_encoder"), load("text_encoder_2")]).unwrap();
    let read = clips.encode(&golden::prompts()[..2]).unwrap();
    golden.assert_close("text", &read.hidden.constant_pad_nd([0, 64 - 56, 0, 1]));
    golden.assert_close("pooled", &read.pooled);
}

#[test]
fn the_transformers_of_3_and_of_3_5_compute_the_same_for_a_batch_at_two_times() {
    let golden = Golden::open("sd3");
    let (sample, times, pooled) = (golden.get("sample"), golden.get("times"), golden.get("pooled"));
    for model in ["sd3", "sd35"] {
        let transformer = SD3Transformer2DModel::load(&golden::files(model), Placement::REFERENCE).unwrap();
        for (vectors, last_counts) in [(&text(&golden), 1), (golden.get("text"), T5_LENGTH)] {
            let output = transformer.forward(sample, times, Text { vectors, last_counts }, pooled);
            Golden::open(model).assert_close("transformer", &output);
        }
    }
}

#[test]
fn the_vae_shifts_and_decodes_the_same() {
    let golden = Golden::open("sd3");
    let shifts = VaeUse { shifts: true, ..VaeUse::default() };
    let vae = AutoencoderKl::load_for(&golden::files("sd3"), Placement::REFERENCE, shifts).unwrap();
    golden.assert_close("decoded", &vae.decode(&golden.get("sample").narrow(0, 0, 1)));
}

#[test]
fn latents_are_the_same_after_every_step_and_so_is_the_picture() {
    let (golden, pipeline) = (Golden::open("sd3"), checkpoint::load("sd3"));
    for (name, guidance_scale) in [("guided", 3.0), ("plain", 1.0)] {
        let mut job = pipeline.encode(&PictureRequest { guidance_scale, ..wish() }).unwrap();
        for step in 0..4 {
            pipeline.denoise_step(&mut [&mut job]).unwrap();
            golden.assert_close(&format!("{name}.latents.{step}"), job.latents());
        }
        assert_picture(&pipeline.decode(&job).unwrap(), golden.get(&format!("{name}.image")));
    }
}

#[test]
fn a_job_in_a_batch_ends_as_it_does_alone() {
    let first = wish();
    let second = PictureRequest { seed: 8, steps: 6, ..wish() };
    let third = PictureRequest { prompt: "red apple".into(), negative_prompt: String::new(), ..wish() };
    assert_batched_as_alone(&checkpoint::load("sd3"), &[first, second, third]);
}

#[test]
fn every_part_is_counted_and_the_key_tells_what_can_share_a_step() {
    let pipeline = checkpoint::load("sd3");
    let parts = [TEXT_ENCODER, TEXT_ENCODER_2, TRANSFORMER, VAE].map(|file| {
        let tensors = Tensor::read_safetensors(golden::folder().join("sd3").join(file)).unwrap();
        tensors.iter().map(|(_, tensor)| tensor.numel() as u64).sum::<u64>()
    });
    assert_eq!(pipeline.memory_bytes(), 4 * parts.iter().sum::<u64>());
    let key = pipeline.batch_key(&wish());
    assert_eq!((key.input_channels, key.height, key.width, key.text_length, key.rows), (16, 12, 20, 25, 2));
    assert_eq!(pipeline.batch_key(&PictureRequest { guidance_scale: 1.0, ..wish() }).rows, 1);
    assert_eq!(pipeline.text_tokens(""), 2);
}

#[test]
fn a_size_that_there_are_no_positions_for_is_refused_with_a_reason() {
    let pipeline = checkpoint::load("sd3");
    let widest = PictureRequest { size: ImageSize::new(96, 96).unwrap(), steps: 1, ..wish() };
    assert!(run(&pipeline, &widest).is_finished());
    let wider = PictureRequest { size: ImageSize::new(112, 96).unwrap(), ..wish() };
    let error = pipeline.encode(&wider).unwrap_err();
    let reason = "112x96 can't be drawn: the model has positions for 24 by 24 latents, not 28 by 24";
    assert!(matches!(&error, PipelineError::Unsupported(text) if text == reason), "{error:?}");
}

#[test]
fn what_is_missing_or_of_another_kind_is_refused_by_name() {
    let (index, transformer, scheduler) =
        ("model_index.json", "transformer/config.json", "scheduler/scheduler_config.json");
    let cases = [
        (index, "text_encoder_2", json!(null), "is missing"),
        (index, "text_encoder", json!(["transformers", "CLIPTextModel"]), "CLIPTextModel"),
        (index, "transformer", json!(["diffusers", "FluxTransformer2DModel"]), "FluxTransformer2DModel"),
        (transformer, "qk_norm", json!("layer_norm"), "layer_norm"),
        (transformer, "caption_projection_dim", json!(48), "48"),
        (transformer, "an_option_of_next_year", json!(1), "an_option_of_next_year"),
        ("vae/config.json", "shift_factor", json!(null), "is missing"),
        (scheduler, "_class_name", json!("EulerDiscreteScheduler"), "EulerDiscreteScheduler"),
        (scheduler, "time_shift_type", json!("square"), "square"),
        (scheduler, "shift_terminal", json!(0.1), "shift_terminal"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = Checkpoint::copy_of("sd3");
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, key, word]);
    }
}
