use proptest::prelude::*;

use super::*;
use crate::ImageSize;
use crate::images::SamplerKind;

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
    assert!((read.image_guidance_scale() - 1.5).abs() < f32::EPSILON);
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
fn every_broken_rule_of_a_form_is_a_400_that_names_its_field() {
    let cases: [(&[Part], &str); 12] = [
        (&[("prompt", b"a")], "image"),
        (&[("image", b"GIF89a"), ("prompt", b"a")], "image"),
        (&[("image", b""), ("prompt", b"a")], "image"),
        (&[("image", PNG), ("image", PNG), ("prompt", b"a")], "image"),
        (&[("image[]", PNG), ("image[]", PNG), ("prompt", b"a")], "image"),
        (&[("image", PNG), ("prompt", b" ")], "prompt"),
        (&[("image", PNG), ("prompt", b"a"), ("prompt", b"b")], "prompt"),
        (&[("image", PNG), ("prompt", b"a"), ("n", b"two")], "n"),
        (&[("image", PNG), ("prompt", b"a"), ("mask", PNG)], "mask"),
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

proptest! {
    #[test]
    fn no_bytes_make_the_form_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = now(EditRequest::read("multipart/form-data; boundary=b", [b"--b\r\n", &body[..]].concat().into()));
    }
}
