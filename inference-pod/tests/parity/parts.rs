//! Each part of a pipeline alone: tokens, text encoder, `UNet`, VAE.

use easel_inference::torch::Placement;
use easel_inference::torch::clip::ClipTextModel;
use easel_inference::torch::tokenizer::PromptTokenizer;
use easel_inference::torch::unet::UNet2DConditionModel;
use easel_inference::torch::vae::AutoencoderKl;
use tch::Tensor;

use crate::golden::{self, Golden, MODELS};

/// Longer than any encoder has positions, so that the tokenizer's own limit shows.
const NO_LIMIT: usize = 1000;

fn tokens(model: &str) -> Vec<Vec<i64>> {
    let tokenizer = PromptTokenizer::load_clip(&golden::files(model), "tokenizer", NO_LIMIT).unwrap();
    golden::prompts().iter().map(|prompt| tokenizer.encode(prompt).unwrap()).collect()
}

#[test]
fn prompts_become_the_same_tokens() {
    for model in MODELS {
        let expected = Vec::<Vec<i64>>::try_from(Golden::open(model).get("tokens")).unwrap();
        assert_eq!(tokens(model), expected, "{model}");
    }
}

#[test]
fn a_prompt_has_no_more_tokens_than_the_encoder_has_positions() {
    let tokenizer = PromptTokenizer::load_clip(&golden::files("sd1"), "tokenizer", 16).unwrap();
    let long = tokenizer.encode(&"cat ".repeat(100)).unwrap();
    let whole = tokens("sd1");
    let (begin, end) = (whole[0][0], *whole[0].last().unwrap());
    assert_eq!((long.len(), long[0], long[15]), (16, begin, end));
    assert_eq!(tokenizer.count(&"cat ".repeat(100)), 16);
    assert_eq!(tokenizer.count(""), 2);
}

#[test]
fn the_text_encoder_computes_the_same() {
    for model in MODELS {
        let text_encoder = ClipTextModel::load(&golden::files(model), "text_encoder", Placement::REFERENCE).unwrap();
        Golden::open(model).assert_close("text", &text_encoder.forward(&tokens(model)));
    }
}

#[test]
fn the_unet_computes_the_same_for_a_batch_at_two_times() {
    for model in MODELS {
        let golden = Golden::open(model);
        let unet = UNet2DConditionModel::load(&golden::files(model), Placement::REFERENCE).unwrap();
        let text = golden.get("text").narrow(0, 0, 2);
        golden.assert_close("unet", &unet.forward(golden.unet_inputs(&text, None), None));
    }
}

#[test]
fn the_vae_says_what_a_pixel_takes() {
    let vae = AutoencoderKl::load(&golden::files("sd1"), Placement::REFERENCE).unwrap();
    let memory = vae.decode_memory();
    // 4 by 4 pixels of 16 channels of f32, 5.25 times.
    assert_eq!(memory.per_position, 4 * 4 * 16 * 4 * 21 / 4);
    assert_eq!(memory.most_positions * 4 * 4, 1536 * 1024);
}

#[test]
fn the_vae_decodes_the_same() {
    for model in MODELS {
        let golden = Golden::open(model);
        let vae = AutoencoderKl::load(&golden::files(model), Placement::REFERENCE).unwrap();
        let latents: Tensor = golden.get("sample").narrow(0, 0, 1);
        golden.assert_close("decoded", &vae.decode(&latents));
    }
}
