use super::*;
use proptest::prelude::*;
use serde_json::json;

fn defaults() -> ModelDefaults {
    let size = ImageSize::new(64, 64).unwrap();
    ModelDefaults { steps: 20, guidance_scale: 4.0, size, sampler: SamplerKind::Ddim }
}

fn limits() -> ModelLimits {
    ModelLimits { max_steps: 50, max_pixels: 64 * 64, max_images: 4 }
}

fn resolve(body: &serde_json::Value) -> Result<Generation, ApiError> {
    GenerationRequest::parse(body.to_string().as_bytes())?.resolve(&defaults(), &limits())
}

#[test]
fn a_prompt_alone_takes_the_models_defaults() {
    let generation = resolve(&json!({"prompt": "pizza"})).unwrap();
    let expected = Generation {
        prompt: "pizza".into(),
        negative_prompt: String::new(),
        n: 1,
        size: defaults().size,
        picture_size: defaults().size,
        quality: Quality::Auto,
        steps: 20,
        guidance_scale: 4.0,
        sampler: SamplerKind::Ddim,
        seed: None,
        adapters: Vec::new(),
    };
    assert_eq!(generation, expected);
}

#[test]
fn every_broken_rule_is_a_400_that_names_its_field() {
    let cases = [
        (json!({"prompt": "a", "n": 0}), "n"),
        (json!({"prompt": "a", "n": 11}), "n"),
        (json!({"prompt": "a", "n": 5}), "n"),
        (json!({"prompt": "a", "n": "two"}), "n"),
        (json!({"prompt": "a", "size": "63x64"}), "size"),
        (json!({"prompt": "a", "size": "128x128"}), "size"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": 7}), "prompt"),
        (json!({"prompt": "x".repeat(32_001)}), "prompt"),
        (json!({"prompt": "a", "negative_prompt": "x".repeat(32_001)}), "negative_prompt"),
        (json!({"prompt": "a", "steps": 0}), "steps"),
        (json!({"prompt": "a", "steps": 51}), "steps"),
        (json!({"prompt": "a", "guidance_scale": -1.0}), "guidance_scale"),
        (json!({"prompt": "a", "quality": "ultra"}), "quality"),
        (json!({"prompt": "a", "stream": "yes"}), "stream"),
        (json!({"prompt": "a", "stream": false, "partial_images": 1}), "partial_images"),
        (json!({"prompt": "a", "partial_images": 2}), "partial_images"),
        (json!({"prompt": "a", "stream": true, "partial_images": 4}), "partial_images"),
        (json!({"prompt": "a", "response_format": "url"}), "response_format"),
        (json!({"prompt": "a", "output_format": "gif"}), "output_format"),
        (json!({"prompt": "a", "output_compression": 101}), "output_compression"),
        (json!({"prompt": "a", "output_compression": 50}), "output_compression"),
        (json!({"prompt": "a", "background": "transparent", "output_format": "jpeg"}), "background"),
        (json!({"prompt": "a", "background": "red"}), "background"),
        (json!({"prompt": "a", "moderation": "off"}), "moderation"),
        (json!({"prompt": "a", "sampler": "magic"}), "sampler"),
        (json!({"prompt": "a", "upscale": 2}), "upscale"),
        (json!({"prompt": "a", "sede": 7}), "sede"),
        (json!({"prompt": "a", "seed": -1}), "seed"),
    ];
    for (body, param) in cases {
        let error = resolve(&body).expect_err(&body.to_string());
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error:?}");
    }
}

#[test]
fn a_request_says_what_file_its_pictures_become() {
    let body = json!({"prompt": "a", "output_format": "webp", "output_compression": 80, "background": "transparent"});
    let request = GenerationRequest::parse(body.to_string().as_bytes()).unwrap();
    let expected = Output { encoding: Encoding::Webp { quality: 80 }, background: Background::Transparent };
    assert_eq!((request.check(), request.output()), (Ok(()), Ok(expected)));
}

#[test]
fn a_request_says_whether_it_is_streamed_and_with_how_many_previews() {
    let streaming = |body: serde_json::Value| {
        let request = GenerationRequest::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(request.check(), Ok(()), "{body}");
        request.streaming()
    };
    assert_eq!(streaming(json!({"prompt": "a"})), None);
    assert_eq!(streaming(json!({"prompt": "a", "partial_images": 0})), None);
    assert_eq!(streaming(json!({"prompt": "a", "stream": true})), Some(Streaming { partial_images: 0 }));
    let three = json!({"prompt": "a", "stream": true, "partial_images": 3});
    assert_eq!(streaming(three), Some(Streaming { partial_images: 3 }));
}

#[test]
fn an_upscaled_picture_is_drawn_at_its_size_and_comes_back_larger() {
    let generation = resolve(&json!({"prompt": "a", "size": "64x32", "upscale": 4})).unwrap();
    assert_eq!((generation.size.to_string(), generation.picture_size.to_string()), ("64x32".into(), "256x128".into()));
    let limits = ModelLimits { max_pixels: 1 << 20, ..limits() };
    let request = GenerationRequest::parse(br#"{"prompt": "a", "size": "1024x1024", "upscale": 4}"#).unwrap();
    let error = request.resolve(&defaults(), &limits).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("upscale"));
    assert!(error.message.contains("3840"), "{error}");
}

#[test]
fn a_body_that_is_not_a_json_object_is_a_400() {
    for body in ["", "{", "[]", "[\"pizza\"]", " [1]", "null", "{\"prompt\": \"a\"} x", "{}", "\u{feff}{}"] {
        let error = GenerationRequest::parse(body.as_bytes()).expect_err(body);
        assert_eq!((error.status, error.param), (400, None), "{body}");
    }
}

#[test]
fn quality_means_steps_unless_steps_are_given() {
    let steps = |body| resolve(&body).unwrap().steps;
    assert_eq!(steps(json!({"prompt": "a", "quality": "low"})), 10);
    assert_eq!(steps(json!({"prompt": "a", "quality": "high"})), 40);
    assert_eq!(steps(json!({"prompt": "a", "quality": "high", "steps": 3})), 3);
}

#[test]
fn a_prompt_of_32000_wide_characters_is_allowed_and_fits_the_body() {
    let body = json!({"prompt": "🍕".repeat(MAX_PROMPT_CHARS)});
    assert!(resolve(&body).is_ok());
    assert!((body.to_string().len() as u64) < MAX_GENERATION_BODY);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = GenerationRequest::parse(&body);
    }

    #[test]
    fn what_is_resolved_is_within_the_limits(n in -2i64..12, steps in -2i64..60, w in 0u32..8, h in 0u32..8) {
        let body = json!({"prompt": "a", "n": n, "steps": steps, "size": format!("{}x{}", w * 16, h * 16)});
        if let Ok(generation) = resolve(&body) {
            prop_assert!((1..=4).contains(&generation.n));
            prop_assert!((1..=50).contains(&generation.steps));
            prop_assert!(generation.size.pixels() <= 64 * 64);
        }
    }
}
