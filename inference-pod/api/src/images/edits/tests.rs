use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::ImageSize;
use crate::images::{AdapterChoice, ControlOptions, SamplerKind, Task};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n rest";

type Part<'a> = (&'a str, &'a [u8]);

fn now<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("nothing to wait for")
}

fn json_request(body: &Value) -> Result<EditRequest, ApiError> {
    let request = now(EditRequest::read("application/json", body.to_string().into()))?;
    request.check().map(|()| request)
}

fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Part]) -> Result<EditRequest, ApiError> {
    let mut body: Vec<u8> = parts.iter().flat_map(|(name, content)| part(name, content)).collect();
    body.extend_from_slice(b"--b--\r\n");
    let request = now(EditRequest::read("multipart/form-data; boundary=b", body.into()))?;
    request.check().map(|()| request)
}

fn picture() -> Value {
    json!([{"image_url": format!("data:image/png;base64,{}", STANDARD.encode(PNG))}])
}

#[test]
fn a_form_and_json_that_say_the_same_are_the_same_request() {
    let sent = form(&[
        ("image", PNG),
        ("prompt", b"in 3D style"),
        ("n", b"2"),
        ("seed", b"18446744073709551615"),
        ("guidance_scale", b"4.5"),
        ("image_guidance_scale", b"1.25"),
        ("stream", b"false"),
        ("size", b"auto"),
    ]);
    let json = json!({"images": picture(), "prompt": "in 3D style", "n": 2, "seed": u64::MAX, "guidance_scale": 4.5,
        "image_guidance_scale": 1.25, "stream": false, "size": "auto"});
    assert_eq!(sent.unwrap(), json_request(&json).unwrap());
}

#[test]
fn a_request_reads_back_from_the_json_that_a_pod_gets() {
    let request = form(&[("image[]", PNG), ("prompt", b"as a woman"), ("steps", b"7")]).unwrap();
    let read = now(EditRequest::read("application/json", request.to_json().unwrap().into())).unwrap();
    assert_eq!(read, request);
    assert_eq!((read.picture.format, &read.picture.bytes[..]), (PictureFormat::Png, PNG));
    let masked = form(&[("image", PNG), ("mask", PNG), ("prompt", b"a"), ("strength", b"0.35")]).unwrap();
    let read = now(EditRequest::read("application/json", masked.to_json().unwrap().into())).unwrap();
    assert_eq!((&read, read.strength, read.mask.is_some()), (&masked, Some(Strength::new(0.35).unwrap()), true));
    let steered = [("control_scale", &b"0.7"[..]), ("control_start", b"0.25"), ("control_end", b"0.5")];
    let steered = form(&[&[("image", PNG), ("prompt", b"a")], &steered[..]].concat()).unwrap();
    let read = now(EditRequest::read("application/json", steered.to_json().unwrap().into())).unwrap();
    assert_eq!((&read, read.control.control_scale), (&steered, Some(0.7)));
}

#[test]
fn an_edit_is_resolved_as_a_generation_is() {
    let size = ImageSize::new(64, 64).unwrap();
    let defaults = ModelDefaults { steps: 20, guidance_scale: 4.0, size, sampler: SamplerKind::Ddim };
    let limits = ModelLimits { max_steps: 50, max_pixels: 64 * 64, max_images: 4 };
    let resolve =
        |steps: &[u8]| form(&[("image", PNG), ("prompt", b"a"), ("steps", steps)])?.resolve(&defaults, &limits);
    let generation = resolve(b"50").unwrap();
    assert_eq!((generation.size, generation.steps, generation.n), (size, 50, 1));
    assert_eq!(resolve(b"51").unwrap_err().param.as_deref(), Some("steps"));
}

#[test]
fn a_form_has_adapters_as_json_and_a_pod_reads_them_back() {
    let read = form(&[("image", PNG), ("prompt", b"a"), ("adapters", br#"[{"name": "ink", "weight": 0.5}]"#)]).unwrap();
    let chosen = vec![AdapterChoice { name: "ink".into(), weight: 0.5 }];
    assert_eq!(read.generation.adapters.as_ref(), Some(&chosen));
    let forwarded = now(EditRequest::read("application/json", read.to_json().unwrap().into())).unwrap();
    assert_eq!(forwarded.generation.adapters, Some(chosen));
}

#[test]
fn every_broken_rule_of_a_form_is_a_400_that_names_its_field() {
    let cases: [(&[Part], &str); 18] = [
        (&[("image", PNG), ("prompt", b"a"), ("adapters", b"ink")], "adapters"),
        (&[("prompt", b"a")], "image"),
        (&[("image", b"GIF89a"), ("prompt", b"a")], "image"),
        (&[("image", b""), ("prompt", b"a")], "image"),
        (&[("image", PNG), ("image", PNG), ("prompt", b"a")], "image"),
        (&[("image[]", PNG), ("image[]", PNG), ("prompt", b"a")], "image"),
        (&[("image", PNG), ("prompt", b" ")], "prompt"),
        (&[("image", PNG), ("prompt", b"a"), ("prompt", b"b")], "prompt"),
        (&[("image", PNG), ("prompt", b"a"), ("n", b"two")], "n"),
        (&[("image", PNG), ("prompt", b"a"), ("mask", b"\xff\xd8\xff a JPEG")], "mask"),
        (&[("image", PNG), ("prompt", b"a"), ("mask", PNG), ("mask", PNG)], "mask"),
        (&[("image", PNG), ("prompt", b"a"), ("strength", b"0")], "strength"),
        (&[("image", PNG), ("prompt", b"a"), ("strength", b"much")], "strength"),
        (&[("image", PNG), ("prompt", b"a"), ("control_scale", b"much")], "control_scale"),
        (&[("image", PNG), ("prompt", b"a"), ("control_start", b"0.5"), ("control_end", b"0.4")], "control_start"),
        (&[("image", PNG), ("prompt", b"a"), ("colour", b"red")], "colour"),
        (&[("image", PNG), ("prompt", b"a"), ("image_guidance_scale", b"-1")], "image_guidance_scale"),
        (&[("image", PNG), ("prompt", b"\xff")], "prompt"),
    ];
    for (parts, param) in cases {
        let error = form(parts).expect_err(param);
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error:?}");
    }
}

#[test]
fn every_broken_rule_of_json_is_a_400_that_names_its_field() {
    let url = |url: &str| json!({"prompt": "a", "images": [{"image_url": url}]});
    let cases = [
        (json!({"prompt": "a"}), "image"),
        (json!({"prompt": "a", "images": []}), "images"),
        (json!({"prompt": "a", "images": [{}]}), "image"),
        (json!({"prompt": "a", "images": [{"file_id": "f"}]}), "images[0].file_id"),
        (json!({"prompt": "a", "images": [{"url": "x"}]}), "images[0].url"),
        (url("https://example.com/cat.png"), "images[0].image_url"),
        (url("data:image/png,abc"), "images[0].image_url"),
        (url("data:image/png;base64,###"), "images[0].image_url"),
        (url("data:image/png;base64,aGVsbG8="), "images[0].image_url"),
        (json!({"prompt": "a", "images": picture(), "input_fidelity": "high"}), "input_fidelity"),
        (json!({"prompt": "a", "images": picture(), "image": "x"}), "image"),
        (json!({"prompt": "a", "images": picture(), "image_guidance_scale": "much"}), "image_guidance_scale"),
        (json!({"images": picture(), "prompt": 7}), "prompt"),
        (json!({"prompt": "a", "images": picture(), "mask": true}), "mask"),
        (json!({"prompt": "a", "images": picture(), "mask": {"file_id": "f"}}), "mask.file_id"),
        (json!({"prompt": "a", "images": picture(), "mask": {"image_url": "data:,"}}), "mask.image_url"),
        (json!({"prompt": "a", "images": picture(), "strength": 1.01}), "strength"),
    ];
    for (body, param) in cases {
        let error = json_request(&body).expect_err(&body.to_string());
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error:?}");
    }
}

#[test]
fn what_is_neither_form_nor_json_is_said_to_be_so() {
    for (kind, status) in [("text/plain", 415), ("", 415), ("multipart/form-data", 400), ("application/json", 400)] {
        let error = now(EditRequest::read(kind, Bytes::from_static(b"[1]"))).unwrap_err();
        assert_eq!(error.status, status, "{kind}: {error:?}");
    }
}

const DRAWS: &[Task] = &[Task::Generate, Task::ImageToImage, Task::Inpaint];

fn way(parts: &[Part], tasks: &[Task]) -> Result<EditWay, ApiError> {
    form(&[&[("image", PNG), ("prompt", b"a")], parts].concat())?.way(tasks)
}

#[test]
fn a_model_changes_a_picture_in_the_way_that_it_can_and_the_request_asks_for() {
    let strength = |value| Strength::new(value).unwrap();
    let half = ControlOptions { scale: 0.5, ..ControlOptions::default() };
    let cases: [(&[Part], &[Task], EditWay); 8] = [
        (&[], DRAWS, EditWay::ImageToImage { strength: strength(0.8) }),
        (&[("strength", b"0.3")], DRAWS, EditWay::ImageToImage { strength: strength(0.3) }),
        (&[("mask", PNG)], DRAWS, EditWay::Inpaint { strength: strength(1.0) }),
        (&[("mask", PNG), ("strength", b"0.5")], &[Task::Inpaint], EditWay::Inpaint { strength: strength(0.5) }),
        (&[], &[Task::Instruct], EditWay::Instruct { image_guidance_scale: 1.5 }),
        (&[("image_guidance_scale", b"2")], &[Task::Instruct], EditWay::Instruct { image_guidance_scale: 2.0 }),
        (&[], &[Task::Control], EditWay::Control(ControlOptions::default())),
        (&[("control_scale", b"0.5")], &[Task::Control], EditWay::Control(half)),
    ];
    for (parts, tasks, expected) in cases {
        assert_eq!(way(parts, tasks).unwrap(), expected);
    }
}

#[test]
fn what_a_model_can_do_nothing_with_is_refused_by_name() {
    let cases: [(&[Part], &[Task], &str, &str); 14] = [
        (&[("mask", PNG)], &[Task::Instruct], "mask", "takes no mask"),
        (&[("strength", b"0.5")], &[Task::Instruct], "strength", "image_guidance_scale"),
        (&[("strength", b"0.5"), ("image_guidance_scale", b"2")], &[Task::Instruct], "strength", "not both"),
        (&[("image_guidance_scale", b"2")], DRAWS, "image_guidance_scale", "image_guidance_scale"),
        (&[("mask", PNG), ("image_guidance_scale", b"2")], DRAWS, "image_guidance_scale", "image_guidance_scale"),
        (&[], &[Task::Inpaint], "image", "send a mask"),
        (&[("mask", PNG)], &[Task::Generate], "mask", "no VAE encoder"),
        (&[("control_scale", b"1")], DRAWS, "control_scale", "no ControlNet"),
        (&[("control_end", b"0.5")], &[Task::Instruct], "control_end", "no ControlNet"),
        (&[("mask", PNG), ("control_start", b"0.5")], DRAWS, "control_start", "leave it out"),
        (&[("mask", PNG)], &[Task::Control], "mask", "leave mask"),
        (&[("strength", b"0.5")], &[Task::Control], "strength", "leave mask and strength out"),
        (&[("strength", b"0.5"), ("control_scale", b"1")], &[Task::Control], "strength", "not both"),
        (&[("image_guidance_scale", b"2")], &[Task::Control], "image_guidance_scale", "leave it out"),
    ];
    for (parts, tasks, param, word) in cases {
        let error = way(parts, tasks).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn a_strength_that_leaves_no_step_is_refused_with_what_to_raise() {
    let size = ImageSize::new(64, 64).unwrap();
    let defaults = ModelDefaults { steps: 20, guidance_scale: 4.0, size, sampler: SamplerKind::Heun };
    let limits = ModelLimits { max_steps: 50, max_pixels: 64 * 64, max_images: 4 };
    let request = form(&[("image", PNG), ("prompt", b"a")]).unwrap();
    let generation = request.resolve(&defaults, &limits).unwrap();
    let calls =
        |strength| EditWay::ImageToImage { strength: Strength::new(strength).unwrap() }.model_calls(&generation);
    assert_eq!((calls(0.8).unwrap(), calls(1.0).unwrap()), (2 * 16 - 1, 2 * 20 - 1));
    let error = calls(0.04).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("strength"));
    assert!(error.message.contains("none of 20 steps"), "{error}");
}

fn square(width: u32, height: u32) -> Vec<u8> {
    [&PNG[..8], &[0, 0, 0, 13], b"IHDR", &width.to_be_bytes(), &height.to_be_bytes()].concat()
}

fn variation(parts: &[Part]) -> Result<VariationRequest, ApiError> {
    let mut body: Vec<u8> = parts.iter().flat_map(|(name, content)| part(name, content)).collect();
    body.extend_from_slice(b"--b--\r\n");
    let request = now(VariationRequest::read("multipart/form-data; boundary=b", body.into()))?;
    request.check().map(|()| request)
}

#[test]
fn a_variation_is_an_edit_without_words_and_reads_back_from_the_json_that_a_pod_gets() {
    let sent = variation(&[("image", &square(64, 64)), ("n", b"2"), ("size", b"256x256")]).unwrap();
    let edit = sent.edit();
    assert_eq!((edit.generation.prompt.as_str(), edit.generation.n), ("", Some(2)));
    assert_eq!(edit.way(DRAWS).unwrap(), EditWay::ImageToImage { strength: Strength::OF_VARIATION });
    let read = now(VariationRequest::read("application/json", edit.to_json().unwrap().into())).unwrap();
    assert_eq!(read, sent);
}

#[test]
fn every_broken_rule_of_a_variation_is_a_400_that_names_its_field() {
    let (wide, fine) = (square(64, 32), square(64, 64));
    let large = [fine.clone(), vec![0; 4 << 20]].concat();
    let cases: [(&[Part], &str); 7] = [
        (&[("n", b"2")], "image"),
        (&[("image", &wide)], "image"),
        (&[("image", b"\xff\xd8\xff a JPEG")], "image"),
        (&[("image", &fine[..20])], "image"),
        (&[("image", &large)], "image"),
        (&[("image", &fine), ("prompt", b"a cat")], "prompt"),
        (&[("image", &fine), ("mask", PNG)], "mask"),
    ];
    for (parts, param) in cases {
        let error = variation(parts).expect_err(param);
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error:?}");
    }
}

/// A form's body of parts with these heads, all of them closed.
fn parts(heads: impl Iterator<Item = String>) -> Vec<u8> {
    let parts: Vec<String> = heads.map(|head| format!("--b\r\n{head}\r\n\r\nx\r\n")).collect();
    format!("{}--b--\r\n", parts.concat()).into()
}

#[test]
fn hostile_forms_are_refused_with_a_reason() {
    let named = |name: usize| format!("content-disposition: form-data; name=\"field{name}\"");
    let endless = b"--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nand so on".to_vec();
    let nested = "content-disposition: form-data; name=\"image\"\r\ncontent-type: multipart/mixed; boundary=c";
    let cases = [
        (parts((0..100_000).map(named)), "more than 64 parts"),
        (parts([named(0) + &"\r\nx-a: b".repeat(100_000)].into_iter()), "can't be read"),
        (parts([format!("{}\r\nx-a: {}", named(0), "b".repeat(1 << 20))].into_iter()), "image is missing"),
        (parts(["x-a: b".to_owned()].into_iter()), "no name"),
        (parts([nested.to_owned()].into_iter()), "not a PNG, JPEG or WebP"),
        (endless, "can't be read"),
        (b"--c\r\n\r\n".to_vec(), "can't be read"),
        (Vec::new(), "can't be read"),
    ];
    for (body, words) in cases {
        let start = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let error = now(EditRequest::read("multipart/form-data; boundary=b", body.into())).expect_err(&start);
        assert_eq!(error.status, 400, "{start}: {error:?}");
        assert!(error.message.contains(words), "{start}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_form_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = now(EditRequest::read("multipart/form-data; boundary=b", [b"--b\r\n", &body[..]].concat().into()));
    }
}
