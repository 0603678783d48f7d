//! A picture that is sent comes back changed, whichever way it was sent, and nothing that is sent can hurt the pod.

use std::fmt::Write as _;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_api::images::{EDITS_PATH, MAX_FORWARDED_EDIT_BODY, Task, VARIATIONS_PATH};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, MODEL, World, checkpoint, desired, is_ready};

const EDITS: &str = "StableDiffusionInstructPix2PixPipeline";

/// With one model that edits.
async fn world() -> World {
    world_of(EDITS).await
}

/// With one model of this class.
pub(crate) async fn world_of(class: &str) -> World {
    let world = World::start(&["--fake-step-ms=1"]).await;
    let model = desired(MODEL, checkpoint(&world.folder.path().join("edits"), class));
    assert_eq!(world.operator.hold(1, vec![model]).await.status, StatusCode::OK);
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    world
}

/// One colour.
pub(crate) fn png(width: u32, height: u32, rgb: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&rgb.repeat((width * height) as usize)).unwrap();
    drop(writer);
    bytes
}

pub(crate) fn form(fields: &[(&str, &[u8])]) -> Request<Body> {
    let part = |(name, content): &(&str, &[u8])| {
        let head = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    let mut body: Vec<u8> = fields.iter().flat_map(part).collect();
    body.extend_from_slice(b"--b--\r\n");
    Request::post(EDITS_PATH).header("content-type", "multipart/form-data; boundary=b").body(body.into()).unwrap()
}

pub(crate) fn as_json(body: &Value) -> Request<Body> {
    Request::post(EDITS_PATH).header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

pub(crate) fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

pub(crate) fn file(answer: &Answer) -> png::Reader<std::io::Cursor<Vec<u8>>> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let bytes = STANDARD.decode(answer.body["data"][0]["b64_json"].as_str().unwrap()).unwrap();
    png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap()
}

#[tokio::test]
async fn a_form_and_json_draw_the_same_picture_of_the_models_size() {
    let world = world().await;
    let red = png(20, 10, [255, 0, 0]);
    let sent = form(&[
        ("image", &red),
        ("prompt", b"make it blue"),
        ("model", MODEL.as_bytes()),
        ("seed", b"7"),
        ("image_guidance_scale", b"2"),
    ]);
    let sent = world.gateway.send(sent).await;
    let same = json!({"images": [{"image_url": data_url(&red)}], "prompt": "make it blue", "model": MODEL, "seed": 7,
        "image_guidance_scale": 2.0});
    let same = world.gateway.send(as_json(&same)).await;
    assert_eq!(sent.body["data"], same.body["data"]);
    assert!(!sent.header("x-easel-model-digest").is_empty());

    let mut reader = file(&sent);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(pixels.len(), 64 * 64 * 3);
    assert_eq!(&pixels[..3], &pixels[pixels.len() - 3..], "the picture that was sent has one colour");
    let texts = &reader.info().utf8_text;
    let easel = texts.iter().find(|chunk| chunk.keyword == "easel").unwrap().get_text().unwrap();
    let easel: Value = serde_json::from_str(&easel).unwrap();
    assert_eq!((&easel["image_guidance_scale"], &easel["seed"]), (&json!(2.0), &json!(7)));
}

#[tokio::test]
async fn usage_counts_the_picture_that_was_sent() {
    let world = world().await;
    let sent =
        form(&[("image", &png(16, 16, [1, 2, 3])), ("prompt", b"in red"), ("model", MODEL.as_bytes()), ("n", b"2")]);
    let answer = world.gateway.send(sent).await;
    let expected = json!({"total_tokens": 4 + 64 + 128, "input_tokens": 4 + 64, "output_tokens": 128,
        "input_tokens_details": {"text_tokens": 4, "image_tokens": 64}});
    assert_eq!(answer.body["usage"], expected);
}

#[tokio::test]
async fn a_model_is_asked_only_for_what_it_does() {
    let edits = world().await;
    let fields: [(&str, &[u8]); 3] = [("prompt", b"in red"), ("model", MODEL.as_bytes()), ("strength", b"0.5")];
    let red = png(16, 16, [255, 0, 0]);
    let wrong = form(&[&[("image", &red[..])], &fields[..]].concat());
    for (answer, hint) in [
        (edits.gateway.generate(json!({})).await, "/v1/images/edits"),
        (edits.gateway.send(wrong).await, "use image_guidance_scale"),
    ] {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(hint), "{message}");
    }
}

#[tokio::test]
async fn a_report_says_what_a_checkpoint_can_do() {
    let (edits, draws) = (world().await, World::ready(&["--fake-step-ms=1"]).await);
    let tasks = async |world: &World| {
        let report = world.operator.report_until(|report| is_ready(report, MODEL)).await;
        report.models[0].tasks.clone()
    };
    assert_eq!(tasks(&edits).await, [Task::Instruct]);
    assert_eq!(tasks(&draws).await, [Task::Generate, Task::ImageToImage, Task::Inpaint]);
}

/// The left half is transparent.
fn mask(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().unwrap();
    let pixels = (0..width * height).flat_map(|index| [0, 0, 0, if index % width < width / 2 { 0 } else { 255 }]);
    writer.write_image_data(&pixels.collect::<Vec<u8>>()).unwrap();
    drop(writer);
    bytes
}

fn pixels(answer: &Answer) -> Vec<u8> {
    let mut reader = file(answer);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[tokio::test]
async fn a_model_that_draws_fills_a_mask_and_leaves_the_rest_as_it_was() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let red = png(64, 64, [255, 0, 0]);
    let sent = form(&[("image", &red), ("mask", &mask(64, 64)), ("prompt", b"blue"), ("model", MODEL.as_bytes())]);
    let answer = world.gateway.send(sent).await;
    for (index, pixel) in pixels(&answer).chunks_exact(3).enumerate() {
        assert_eq!(pixel == [255, 0, 0], index % 64 >= 32, "{index}");
    }
    let same = json!({"images": [{"image_url": data_url(&red)}], "mask": {"image_url": data_url(&mask(64, 64))},
        "prompt": "blue", "model": MODEL, "seed": answer.body["data"][0]["seed"]});
    assert_eq!(pixels(&world.gateway.send(as_json(&same)).await), pixels(&answer));
}

#[tokio::test]
async fn a_picture_that_is_drawn_on_says_its_strength_and_takes_the_steps_that_it_leaves() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let steps = async || {
        let metrics = world.metrics().await;
        let counts = metrics.lines().filter(|line| line.contains("step_seconds_count"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = steps().await;
    let red = png(64, 64, [255, 0, 0]);
    let sent = form(&[
        ("image", &red),
        ("prompt", b"blue"),
        ("model", MODEL.as_bytes()),
        ("steps", b"10"),
        ("strength", b"0.35"),
    ]);
    let answer = world.gateway.send(sent).await;
    let easel = file(&answer).info().utf8_text.iter().find(|chunk| chunk.keyword == "easel").unwrap().get_text();
    let easel: Value = serde_json::from_str(&easel.unwrap()).unwrap();
    assert_eq!((&easel["strength"], &easel["steps"]), (&json!(0.35), &json!(10)));
    assert_eq!(steps().await - before, 3);
    let none = form(&[("image", &red), ("prompt", b"a"), ("model", MODEL.as_bytes()), ("strength", b"0.01")]);
    let refused = world.gateway.send(none).await;
    assert_eq!((refused.status, refused.body["error"]["param"].as_str()), (StatusCode::BAD_REQUEST, Some("strength")));
}

#[tokio::test]
async fn a_mask_that_does_not_fit_is_refused_by_name_and_the_pod_goes_on() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let red = png(64, 64, [255, 0, 0]);
    let whole = mask(64, 64);
    for (mask, word) in [
        (&mask(32, 64)[..], "32x64 and the picture 64x64"),
        (&red[..], "no transparency"),
        (&whole[..60], "can't be decoded"),
        (b"\xff\xd8\xff a JPEG", "no PNG"),
    ] {
        let sent = form(&[("image", &red), ("mask", mask), ("prompt", b"a"), ("model", MODEL.as_bytes())]);
        let answer = world.gateway.send(sent).await;
        let error = &answer.body["error"];
        assert_eq!((answer.status, error["param"].as_str()), (StatusCode::BAD_REQUEST, Some("mask")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    file(&world.gateway.send(form(&[("image", &red), ("prompt", b"a"), ("model", MODEL.as_bytes())])).await);
}

#[tokio::test]
async fn a_variation_needs_no_words() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let send = |fields: &[(&str, &[u8])]| {
        let mut request = form(fields);
        *request.uri_mut() = VARIATIONS_PATH.parse().unwrap();
        request
    };
    let red = png(64, 64, [255, 0, 0]);
    let answer = world.gateway.send(send(&[("image", &red), ("model", MODEL.as_bytes()), ("n", b"2")])).await;
    assert_eq!(answer.body["data"].as_array().unwrap().len(), 2, "{}", answer.body);
    assert_eq!(pixels(&answer).len(), 64 * 64 * 3);
    let wide = send(&[("image", &png(64, 32, [255, 0, 0])), ("model", MODEL.as_bytes())]);
    let refused = world.gateway.send(wide).await;
    assert_eq!((refused.status, refused.body["error"]["param"].as_str()), (StatusCode::BAD_REQUEST, Some("image")));
}

#[tokio::test]
async fn a_picture_too_large_or_broken_is_refused_and_the_pod_goes_on() {
    let world = world().await;
    let whole = png(16, 16, [1, 2, 3]);
    let mut huge = Vec::new();
    let mut encoder = png::Encoder::new(&mut huge, 60_000, 60_000);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, b"").unwrap();
    drop(writer);
    for (bytes, word) in
        [(&huge[..], "60000x60000"), (&whole[..50], "can't be decoded"), (b"GIF89a", "PNG, JPEG or WebP")]
    {
        let answer = world.gateway.send(form(&[("image", bytes), ("prompt", b"a"), ("model", MODEL.as_bytes())])).await;
        let error = &answer.body["error"];
        let found = (answer.status, error["param"].as_str(), error["code"].as_str());
        assert_eq!(found, (StatusCode::BAD_REQUEST, Some("image"), Some("invalid_image")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let fine = form(&[("image", &whole), ("prompt", b"a"), ("model", MODEL.as_bytes())]);
    file(&world.gateway.send(fine).await);
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused() {
    let world = world().await;
    let mut body = String::from("{\"prompt\": \"");
    write!(body, "{}\"}}", "x".repeat(MAX_FORWARDED_EDIT_BODY as usize)).unwrap();
    let request = Request::post(EDITS_PATH).header("content-type", "application/json").body(body.into()).unwrap();
    let answer = world.gateway.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
}
