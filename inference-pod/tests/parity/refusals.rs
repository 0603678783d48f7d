//! Checkpoints that would be drawn wrongly are refused, with what is wrong in the text.

use serde_json::json;
use tch::{Kind, Tensor};

use crate::checkpoint::{Checkpoint, TEXT_ENCODER, UNET, VAE};

pub(crate) fn assert_refused(checkpoint: &Checkpoint, words: &[&str]) {
    let text = checkpoint.refusal();
    println!("{text}");
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

#[test]
fn a_folder_of_another_layout_is_refused() {
    let checkpoint = Checkpoint::copy_of("sd1");
    std::fs::remove_file(checkpoint.path("model_index.json")).unwrap();
    assert_refused(&checkpoint, &["model_index.json is missing", "diffusers layout"]);
}

#[test]
fn unknown_classes_are_refused_by_name() {
    let cases = [
        ("model_index.json", "_class_name", json!("KolorsPipeline"), "KolorsPipeline"),
        ("model_index.json", "unet", json!(["diffusers", "UNet3D"]), "UNet3D"),
        ("model_index.json", "image_encoder", json!(["transformers", "CLIPVision"]), "CLIPVision"),
        ("scheduler/scheduler_config.json", "_class_name", json!("FlowMatchEuler"), "FlowMatchEuler"),
        ("unet/config.json", "mid_block_type", json!("UNetMidBlock2D"), "UNetMidBlock2D"),
    ];
    for (file, key, value, word) in cases {
        let checkpoint = Checkpoint::copy_of("sd1");
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, key, word]);
    }
}

#[test]
fn options_that_nothing_here_computes_are_refused_by_name() {
    let cases = [
        ("unet/config.json", "class_embed_type", json!("timestep")),
        ("unet/config.json", "addition_embed_type", json!("text_time")),
        ("unet/config.json", "resnet_time_scale_shift", json!("scale_shift")),
        ("unet/config.json", "an_option_of_next_year", json!(1)),
        ("unet/config.json", "only_cross_attention", json!(true)),
        ("unet/config.json", "act_fn", json!("mish")),
        ("vae/config.json", "shift_factor", json!(0.1)),
        ("vae/config.json", "latents_mean", json!([0.5])),
        ("text_encoder/config.json", "hidden_act", json!("relu")),
        ("scheduler/scheduler_config.json", "trained_betas", json!([0.1])),
        ("scheduler/scheduler_config.json", "use_exponential_sigmas", json!(true)),
        ("scheduler/scheduler_config.json", "thresholding", json!(true)),
        ("scheduler/scheduler_config.json", "predict_x0", json!(false)),
        ("scheduler/scheduler_config.json", "solver_order", json!(4)),
        ("scheduler/scheduler_config.json", "solver_type", json!("bh3")),
        ("scheduler/scheduler_config.json", "variance_type", json!("learned_range")),
        ("scheduler/scheduler_config.json", "lambda_min_clipped", json!(-5.1)),
        ("scheduler/scheduler_config.json", "beta_schedule", json!("sigmoid")),
    ];
    for (file, key, value) in cases {
        let checkpoint = Checkpoint::copy_of("sd2");
        let text = value.to_string();
        checkpoint.edit_json(file, |json| json[key] = value);
        assert_refused(&checkpoint, &[file, key, &text]);
    }
}

#[test]
fn a_missing_key_is_named() {
    let checkpoint = Checkpoint::copy_of("sd1");
    checkpoint.edit_weights(UNET, |tensors| tensors.retain(|(key, _)| key != "mid_block.resnets.1.conv2.bias"));
    assert_refused(&checkpoint, &[UNET, "'mid_block.resnets.1.conv2.bias' is missing"]);
}

#[test]
fn a_key_of_another_shape_is_named_with_both_shapes() {
    let checkpoint = Checkpoint::copy_of("sd1");
    checkpoint.edit_weights(VAE, |tensors| {
        let (_, weight) = tensors.iter_mut().find(|(key, _)| key == "decoder.conv_in.weight").unwrap();
        *weight = weight.narrow(0, 0, 8).copy();
    });
    assert_refused(&checkpoint, &[VAE, "'decoder.conv_in.weight'", "[8, 4, 3, 3]", "[16, 4, 3, 3]"]);
}

#[test]
fn unknown_keys_are_counted_and_the_first_five_are_named() {
    let checkpoint = Checkpoint::copy_of("sd2");
    checkpoint.edit_weights(TEXT_ENCODER, |tensors| {
        tensors.extend((0..7).map(|index| (format!("zzz.{index}"), Tensor::from(1.0_f32))));
    });
    assert_refused(&checkpoint, &[TEXT_ENCODER, "7 tensors are unknown", "zzz.0", "zzz.4"]);
    assert!(!checkpoint.refusal().contains("zzz.5"));
}

#[test]
fn a_dtype_that_is_not_a_float_is_named() {
    let checkpoint = Checkpoint::copy_of("sd1");
    checkpoint.edit_weights(UNET, |tensors| {
        let (_, weight) = tensors.iter_mut().find(|(key, _)| key == "conv_in.weight").unwrap();
        *weight = weight.to_kind(Kind::Int8);
    });
    assert_refused(&checkpoint, &[UNET, "'conv_in.weight'", "I8", "F32, F16 and BF16"]);
}

#[test]
fn a_truncated_or_padded_file_is_refused_before_a_tensor_is_made() {
    let checkpoint = Checkpoint::copy_of("sd1");
    let path = checkpoint.path(UNET);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_refused(&checkpoint, &[UNET, "truncated", &bytes.len().to_string()]);
    std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
    assert_refused(&checkpoint, &[UNET, "truncated or padded"]);
    std::fs::write(&path, &bytes[..100]).unwrap();
    assert_refused(&checkpoint, &[UNET, "not a safetensors file"]);
    std::fs::write(&path, b"").unwrap();
    assert_refused(&checkpoint, &[UNET, "shorter than 8 bytes"]);
}

/// A header's length, the header, and as many bytes as are said.
fn write_safetensors(checkpoint: &Checkpoint, length: u64, header: &str, data: usize) {
    let bytes = [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
    std::fs::write(checkpoint.path(UNET), bytes).unwrap();
}

#[test]
fn a_header_that_lies_is_refused_before_memory_is_asked_for() {
    let checkpoint = Checkpoint::copy_of("sd1");
    for (length, words) in [(1 << 60, "1152921504606846976 bytes"), (u64::MAX, "bytes"), (1 << 20, "bytes")] {
        write_safetensors(&checkpoint, length, "{}", 1000);
        assert_refused(&checkpoint, &[UNET, "its header would have", words]);
    }
    let tensors = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
        )
    };
    let huge = r#"{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
    let cases = [
        (tensors("[0,8]", "[4,12]"), 12, "not a safetensors file"), // one over the other
        (tensors("[0,8]", "[12,20]"), 20, "not a safetensors file"), // a gap
        (tensors("[8,0]", "[0,8]"), 8, "not a safetensors file"),   // backwards
        (tensors("[0,16]", "[16,24]"), 24, "not a safetensors file"), // more bytes than the shape has
        (huge.to_owned(), 8, "truncated or padded"),
        ("{\"a\":".to_owned(), 8, "not a safetensors file"),
        ("[".repeat(100_000), 8, "not a safetensors file"),
    ];
    for (header, data, words) in cases {
        write_safetensors(&checkpoint, header.len() as u64, &header, data);
        assert_refused(&checkpoint, &[UNET, words]);
    }
}

#[test]
fn pickle_is_never_read() {
    let checkpoint = Checkpoint::copy_of("sd1");
    std::fs::rename(checkpoint.path(UNET), checkpoint.path("unet/diffusion_pytorch_model.bin")).unwrap();
    assert_refused(&checkpoint, &["unet", "pickle"]);
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let checkpoint = Checkpoint::copy_of("sd1");
    let other = Checkpoint::copy_of("sd2");
    // A VAE of 8 latent channels beside a UNet of 4 would fail at the first picture.
    other.edit_json("vae/config.json", |json| json["latent_channels"] = json!(8));
    assert_refused(&other, &["vae", "encoder.conv_out.weight", "[16, 16, 3, 3]"]);
    std::fs::remove_dir_all(checkpoint.path("tokenizer")).unwrap();
    assert_refused(&checkpoint, &["tokenizer", "neither tokenizer.json nor vocab.json and merges.txt"]);
}

#[test]
fn sixteen_bit_variants_and_shards_are_found() {
    let checkpoint = Checkpoint::copy_of("sd1");
    std::fs::rename(checkpoint.path(UNET), checkpoint.path("unet/diffusion_pytorch_model.fp16.safetensors")).unwrap();
    let tensors = Tensor::read_safetensors(checkpoint.path(VAE)).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    for (shard, tensors) in [("1", first), ("2", second)] {
        let file = format!("vae/diffusion_pytorch_model-0000{shard}-of-00002.safetensors");
        Tensor::write_safetensors(tensors, checkpoint.path(&file)).unwrap();
    }
    std::fs::remove_file(checkpoint.path(VAE)).unwrap();
    checkpoint.load().unwrap();
}
