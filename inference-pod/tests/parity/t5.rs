//! T5: its tokenizer and its encoder, and Stable Diffusion 3 that reads by it.

use easel_api::images::SamplerKind;
use easel_inference::pipeline::{PictureRequest, Pipeline};
use easel_inference::torch::Placement;
use easel_inference::torch::t5::T5EncoderModel;
use easel_inference::torch::tokenizer::PromptTokenizer;
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::golden::{self, Golden};
use crate::refusals::assert_refused;
use crate::runs::{FLOW, assert_batched_as_alone, assert_picture, request};

/// Where a part with T5 lies, and how long prompts are there.
const PARTS: [(&str, &str, usize); 2] = [("sd3t5", "_3", 256), ("flux", "_2", 512)];

/// The golden checkpoint without T5, with it.
fn sd3() -> Checkpoint {
    let checkpoint = Checkpoint::copy_of("sd3");
    checkpoint.add("sd3t5").edit_json("model_index.json", |json| {
        json["text_encoder_3"] = json!(["transformers", "T5EncoderModel"]);
        json["tokenizer_3"] = json!(["transformers", "T5Tokenizer"]);
    });
    checkpoint
}

fn tokens(model: &str, part: &str, length: usize) -> Vec<Vec<i64>> {
    let tokenizer = PromptTokenizer::load_t5(&golden::files(model), &format!("tokenizer{part}"), length).unwrap();
    golden::prompts().iter().map(|prompt| tokenizer.encode(prompt).unwrap()).collect()
}

#[test]
fn prompts_become_the_same_tokens() {
    for (model, part, length) in PARTS {
        let expected = Vec::<Vec<i64>>::try_from(Golden::open(model).get("tokens")).unwrap();
        assert_eq!(tokens(model, part, length), expected, "{model}");
    }
}

#[test]
fn a_tokenizer_reads_by_its_table_of_spellings() {
    let tokenizer = PromptTokenizer::load_t5(&golden::files("sd3t5"), "tokenizer_3", 256).unwrap();
    let tokens = |prompt: &str| tokenizer.encode(prompt).unwrap();
    assert_eq!(tokens("ﬁrst\u{a0}Ａ cafe\u{301}"), tokens("first A café"));
    assert_ne!(tokens("first"), tokens("FIRST"));
    assert_eq!((tokenizer.count(""), tokens("").len()), (1, 256));
}

#[test]
fn encoders_of_both_generations_compute_the_same() {
    for ((model, part, length), rows) in PARTS.into_iter().zip([[0, 4], [0, 1]]) {
        let part = (part, format!("text_encoder{part}"));
        let encoder = T5EncoderModel::load(&golden::files(model), &part.1, Placement::REFERENCE).unwrap();
        let tokens = tokens(model, part.0, length);
        Golden::open(model).assert_close("text", &encoder.forward(&rows.map(|row: usize| tokens[row].clone())));
    }
}

#[test]
fn stable_diffusion_3_with_t5_draws_the_same() {
    let (golden, pipeline) = (Golden::open("sd3t5"), sd3().load().unwrap());
    let mut job = pipeline.encode(&request("sd2", FLOW)).unwrap();
    for step in 0..4 {
        pipeline.denoise_step(&mut [&mut job]).unwrap();
        golden.assert_close(&format!("guided.latents.{step}"), job.latents());
    }
    assert_picture(&pipeline.decode(&job).unwrap(), golden.get("guided.image"));
}

#[test]
fn shifts_that_depend_on_the_size_are_those_of_diffusers() {
    let golden = Golden::open("sd3t5");
    for kind in ["exponential", "linear"] {
        let checkpoint = sd3();
        checkpoint.edit_json("scheduler/scheduler_config.json", |json| {
            json["use_dynamic_shifting"] = json!(true);
            json["time_shift_type"] = json!(kind);
            json["base_image_seq_len"] = json!(16);
            json["max_image_seq_len"] = json!(100);
        });
        let pipeline = checkpoint.load().unwrap();
        let mut job = pipeline.encode(&PictureRequest { guidance_scale: 1.0, ..request("sd2", FLOW) }).unwrap();
        for step in 0..4 {
            pipeline.denoise_step(&mut [&mut job]).unwrap();
            golden.assert_close(&format!("{kind}.latents.{step}"), job.latents());
        }
    }
}

#[test]
fn a_job_that_reads_by_t5_ends_in_a_batch_as_it_does_alone() {
    let first = request("sd2", FLOW);
    let second = PictureRequest { prompt: "red apple".into(), seed: 8, steps: 6, ..first.clone() };
    let third = PictureRequest { negative_prompt: String::new(), ..first.clone() };
    assert_batched_as_alone(&sd3().load().unwrap(), &[first, second, third]);
}

#[test]
fn every_tensor_of_t5_is_counted() {
    let [without, with] = [Checkpoint::copy_of("sd3"), sd3()].map(|checkpoint| checkpoint.load().unwrap());
    let file = golden::folder().join("sd3t5/text_encoder_3/model.safetensors");
    let values: usize = tch::Tensor::read_safetensors(file).unwrap().iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(with.memory_bytes() - without.memory_bytes(), 4 * values as u64);
    let request = request("sd2", SamplerKind::FlowMatchEuler);
    let [with, without] = [with, without].map(|pipeline| pipeline.batch_key(&request));
    assert_eq!((with.text_length, without.text_length), (24 + 256, 24 + 1));
}

#[test]
fn a_t5_that_does_not_fit_or_that_nobody_reads_is_refused_by_name() {
    let (config, index) = ("text_encoder_3/config.json", "model_index.json");
    let cases = [
        (index, "text_encoder_3", json!(["transformers", "UMT5EncoderModel"]), "UMT5EncoderModel"),
        (index, "tokenizer_3", json!(["transformers", "GemmaTokenizer"]), "GemmaTokenizer"),
        (config, "feed_forward_proj", json!("gated-silu"), "gated-silu"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = sd3();
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[key, word]);
    }
    let checkpoint = sd3();
    for file in ["config.json", "model.safetensors"] {
        let narrow = golden::folder().join("flux/text_encoder_2").join(file);
        std::fs::copy(narrow, checkpoint.path("text_encoder_3").join(file)).unwrap();
    }
    assert_refused(&checkpoint, &["'joint_attention_dim' is 64", "T5's d_model", "40"]);
    let checkpoint = sd3();
    std::fs::remove_file(checkpoint.path("tokenizer_3/tokenizer.json")).unwrap();
    assert_refused(&checkpoint, &["tokenizer_3/tokenizer.json is missing", "T5TokenizerFast"]);
}
