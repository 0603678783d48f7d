//! Stable Diffusion XL: two text encoders, a `UNet` that is told sizes, whole pictures, and what is refused.

use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use easel_inference::pipeline::{PictureRequest, Pipeline};
use easel_inference::torch::Placement;
use easel_inference::torch::clip::{ClipPair, ClipTextModel};
use easel_inference::torch::tokenizer::PromptTokenizer;
use easel_inference::torch::unet::UNet2DConditionModel;
use easel_inference::torch::vae::AutoencoderKl;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE};
use crate::golden::{self, Golden, max_difference};
use crate::refusals::assert_refused;
use crate::runs::{assert_batched_as_alone, assert_picture, request, run};

/// The request of `goldens/sdxl.py`; its size is that of `sd2`.
fn wish(sampler: SamplerKind) -> PictureRequest {
    request("sd2", sampler)
}

fn unguided(request: PictureRequest) -> PictureRequest {
    PictureRequest { guidance_scale: 1.0, ..request }
}

fn without_negative(request: PictureRequest) -> PictureRequest {
    PictureRequest { negative_prompt: String::new(), ..request }
}

fn clips(files: &Files) -> ClipPair {
    let first = ClipTextModel::load(files, "text_encoder", Placement::REFERENCE).unwrap();
    let second = ClipTextModel::load_with_projection(files, "text_encoder_2", Placement::REFERENCE).unwrap();
    ClipPair::load(files, [first, second]).unwrap()
}

#[test]
fn both_tokenizers_pad_in_their_own_way() {
    let golden = Golden::open("sdxl");
    for (part, key) in [("tokenizer", "tokens"), ("tokenizer_2", "tokens_2")] {
        let tokenizer = PromptTokenizer::load_clip(&golden::files("sdxl"), part, 1000).unwrap();
        let found = tokenizer.encode_all(&golden::prompts()).unwrap();
        assert_eq!(found, Vec::<Vec<i64>>::try_from(golden.get(key)).unwrap(), "{part}");
    }
}

#[test]
fn both_text_encoders_read_side_by_side_and_the_second_as_a_whole() {
    let golden = Golden::open("sdxl");
    let read = clips(&golden::files("sdxl")).encode(&golden::prompts()).unwrap();
    golden.assert_close("text", &read.hidden);
    golden.assert_close("pooled", &read.pooled);
}

/// transformers 5 writes the first without `text_model.` and the second with it; 4 writes both with it.
#[test]
fn text_encoders_of_every_generation_of_exports_read_the_same() {
    let golden = Golden::open("sdxl");
    let prompts = golden::prompts();
    let checkpoint = Checkpoint::copy_of("sdxl");
    let layouts = [(TEXT_ENCODER, "", "text_model."), (TEXT_ENCODER_2, "text_model.", "")];
    for (file, old, new) in layouts {
        checkpoint.edit_weights(file, |tensors| {
            for (key, _) in tensors.iter_mut().filter(|(key, _)| !key.starts_with("text_projection")) {
                *key = format!("{new}{}", key.strip_prefix(old).unwrap());
            }
        });
        let read = clips(&Files::trusted(checkpoint.folder()).unwrap()).encode(&prompts).unwrap();
        golden.assert_close("text", &read.hidden);
        golden.assert_close("pooled", &read.pooled);
    }
}

#[test]
fn the_end_token_is_found_by_its_number_or_as_the_greatest() {
    let golden = Golden::open("sdxl");
    let checkpoint = Checkpoint::copy_of("sdxl");
    // What OpenAI's own exports say; no token of the prompts has this number.
    checkpoint.edit_json("text_encoder_2/config.json", |json| json["eos_token_id"] = json!(2));
    let read = clips(&Files::trusted(checkpoint.folder()).unwrap()).encode(&golden::prompts()).unwrap();
    golden.assert_close("pooled", &read.pooled);
}

#[test]
fn the_unet_computes_the_same_for_two_times_and_two_kinds_of_sizes() {
    let golden = Golden::open("sdxl");
    let unet = UNet2DConditionModel::load_with_added_conditions(&golden::files("sdxl"), Placement::REFERENCE).unwrap();
    let [text, pooled] = ["text", "pooled"].map(|key| golden.get(key).narrow(0, 0, 2));
    let added = unet.added_conditions(&pooled, golden.get("time_ids")).unwrap();
    golden.assert_close("unet", &unet.forward(golden.unet_inputs(&text, Some(&added)), None));
}

#[test]
fn the_vae_decodes_and_encodes_in_tiles_as_diffusers_does() {
    let golden = Golden::open("sdxl");
    let vae = AutoencoderKl::load_with_encoder(&golden::files("sdxl"), Placement::REFERENCE).unwrap();
    let latents = golden.get("sample").narrow(0, 0, 1);
    golden.assert_close("decoded_in_tiles", &vae.decode_in_tiles(&latents, [4, 4]));
    golden.assert_close("moments_in_tiles", &vae.moments_in_tiles(golden.get("pixels"), [4, 4]).unwrap());
}

#[test]
fn a_picture_that_is_too_large_as_a_whole_is_decoded_and_encoded_in_tiles() {
    let vae = AutoencoderKl::load_with_encoder(&golden::files("sdxl"), Placement::REFERENCE).unwrap();
    // 4 pixels a latent. Long and narrow, for attention over a large tile takes its time: 35 tiles of 236 latents.
    let latents = Tensor::randn([1, 4, 6160, 16], (Kind::Float, Device::Cpu));
    let pixels = vae.decode(&latents);
    assert_eq!(pixels.size(), [1, 3, 24640, 64]);
    // Up to where the next one fades in, the first tile is what it is alone.
    let begin = |x: &Tensor, length| x.narrow(2, 0, length);
    assert_eq!(begin(&pixels, 4 * 177), begin(&vae.decode(&begin(&latents, 236)), 4 * 177));
    let alone = vae.encode(&begin(&pixels, 4 * 236)).unwrap();
    assert_eq!(begin(&vae.encode(&pixels).unwrap(), 177), begin(&alone, 177));
}

#[test]
fn the_vae_decodes_the_same() {
    let golden = Golden::open("sdxl");
    let vae = AutoencoderKl::load(&golden::files("sdxl"), Placement::REFERENCE).unwrap();
    golden.assert_close("decoded", &vae.decode(&golden.get("sample").narrow(0, 0, 1)));
}

#[test]
fn latents_are_the_same_after_every_step_and_so_is_the_picture() {
    let (golden, pipeline) = (Golden::open("sdxl"), checkpoint::load("sdxl"));
    let runs = [
        ("ddim", wish(SamplerKind::Ddim)),
        ("euler", wish(SamplerKind::Euler)),
        ("plain", unguided(wish(SamplerKind::Euler))),
        ("zeros", without_negative(wish(SamplerKind::Ddim))),
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

#[test]
fn an_empty_negative_prompt_is_read_where_the_checkpoint_forces_no_zeros() {
    let golden = Golden::open("sdxl");
    let checkpoint = Checkpoint::copy_of("sdxl");
    checkpoint.edit_json("model_index.json", |json| json["force_zeros_for_empty_prompt"] = json!(false));
    let job = run(&checkpoint.load().unwrap(), &without_negative(wish(SamplerKind::Ddim)));
    golden.assert_close("empty.latents.3", job.latents());
    assert!(max_difference(job.latents(), golden.get("zeros.latents.3")) > 0.1);
}

#[test]
fn a_job_in_a_batch_ends_as_it_does_alone() {
    let first = wish(SamplerKind::Ddim);
    let second = PictureRequest { seed: 8, steps: 6, ..wish(SamplerKind::Euler) };
    let third = PictureRequest { prompt: "red apple".into(), ..without_negative(first.clone()) };
    assert_batched_as_alone(&checkpoint::load("sdxl"), &[first, second, third]);
}

#[test]
fn every_part_is_counted_and_the_key_tells_what_can_share_a_step() {
    let pipeline = checkpoint::load("sdxl");
    let parts = [TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE].map(|file| {
        let tensors = Tensor::read_safetensors(golden::folder().join("sdxl").join(file)).unwrap();
        tensors.iter().map(|(_, tensor)| tensor.numel() as u64).sum::<u64>()
    });
    assert_eq!(pipeline.memory_bytes(), 4 * parts.iter().sum::<u64>());
    let key = pipeline.batch_key(&wish(SamplerKind::Ddim));
    assert_eq!((key.input_channels, key.height, key.width, key.text_length, key.rows), (4, 12, 20, 24, 2));
    assert_eq!(pipeline.batch_key(&unguided(wish(SamplerKind::Ddim))).rows, 1);
    assert_eq!(pipeline.text_tokens(""), 2);
}

#[test]
fn what_is_missing_or_of_another_kind_is_refused_by_name() {
    let index = "model_index.json";
    let cases = [
        (index, "text_encoder_2", json!([null, null]), "text_encoder_2"),
        (index, "text_encoder_2", json!(["transformers", "CLIPTextModel"]), "CLIPTextModel"),
        (index, "image_encoder", json!(["transformers", "CLIPVision"]), "CLIPVision"),
        ("unet/config.json", "addition_embed_type", json!("text_image"), "text_image"),
        ("unet/config.json", "addition_embed_type", json!(null), "null"),
        ("unet/config.json", "addition_time_embed_dim", json!(9), "projection_class_embeddings_input_dim"),
        ("unet/config.json", "projection_class_embeddings_input_dim", json!(null), "is missing"),
        ("vae/config.json", "shift_factor", json!(0.1), "0.1"),
        ("scheduler/scheduler_config.json", "_class_name", json!("EDMEulerScheduler"), "EDMEulerScheduler"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = Checkpoint::copy_of("sdxl");
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, word]);
    }
}

#[test]
fn parts_of_different_widths_and_lengths_are_refused() {
    let checkpoint = Checkpoint::copy_of("sdxl");
    checkpoint.edit_json("tokenizer_2/tokenizer_config.json", |json| json["model_max_length"] = json!(20));
    assert_refused(&checkpoint, &["tokenizer_2", "20 tokens", "24"]);
    let checkpoint = Checkpoint::copy_of("sdxl");
    std::fs::remove_dir_all(checkpoint.path("text_encoder_2")).unwrap();
    assert_refused(&checkpoint, &["text_encoder_2/config.json is missing"]);
}
