//! Format, compression and background of a picture are as the request says, and what can't be done is said before
//! anything is drawn.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_inference::cut_out::{CutOut, FakeCutOut, Mask};
use easel_inference::finishing::Finishing;
use easel_inference::pipeline::{Picture, PipelineError};
use easel_inference::upscale::Repeat;
use hyper::StatusCode;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use serde_json::{Value, json};

use crate::support::{Answer, World};

const FAST: &[&str] = &["--fake-step-ms=1"];

fn cutting(cut_out: impl CutOut) -> Finishing {
    Finishing { cut_out: Some(Arc::new(cut_out)), ..Finishing::default() }
}

async fn world() -> World {
    World::start_with(cutting(FakeCutOut), FAST).await.with_model().await
}

/// The format that the bytes have, the XMP packet, and the pixels.
fn file(answer: &Answer) -> (ImageFormat, String, DynamicImage) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let bytes = STANDARD.decode(answer.body["data"][0]["b64_json"].as_str().unwrap()).unwrap();
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap();
    let format = reader.format().unwrap();
    let mut decoder = reader.into_decoder().unwrap();
    let packet = String::from_utf8(decoder.xmp_metadata().unwrap().unwrap()).unwrap();
    (format, packet, DynamicImage::from_decoder(decoder).unwrap())
}

fn described(answer: &Answer) -> (&Value, &Value) {
    (&answer.body["output_format"], &answer.body["background"])
}

#[tokio::test]
async fn each_format_comes_back_as_itself_and_says_that_a_model_made_it() {
    let world = world().await;
    for (name, format) in [("png", ImageFormat::Png), ("jpeg", ImageFormat::Jpeg), ("webp", ImageFormat::WebP)] {
        let answer = world.gateway.generate(json!({"output_format": name, "seed": 7})).await;
        let (found, packet, image) = file(&answer);
        assert_eq!((found, image.width(), image.color().has_alpha()), (format, 64, false));
        assert!(packet.contains("trainedAlgorithmicMedia") && packet.contains("Seed: 7"), "{name}: {packet}");
        assert_eq!(described(&answer), (&json!(name), &json!("opaque")));
    }
}

#[tokio::test]
async fn lower_compression_values_make_smaller_files_and_webp_loses_nothing_at_100() {
    let world = world().await;
    let draw = async |format: &str, level: u8| {
        let wish = json!({"output_format": format, "output_compression": level, "seed": 7});
        world.gateway.generate(wish).await
    };
    for format in ["jpeg", "webp"] {
        let size = |answer: &Answer| answer.body["data"][0]["b64_json"].as_str().unwrap().len();
        let (low, high) = (draw(format, 5).await, draw(format, 95).await);
        assert!(size(&low) < size(&high), "{format}: {} and {}", size(&low), size(&high));
    }
    let png = world.gateway.generate(json!({"seed": 7})).await;
    assert_eq!(file(&draw("webp", 100).await).2.into_rgb8(), file(&png).2.into_rgb8());
}

#[tokio::test]
async fn a_transparent_background_leaves_the_object_and_its_colours() {
    let world = world().await;
    let opaque = file(&world.gateway.generate(json!({"seed": 7})).await).2.into_rgb8();
    for format in ["png", "webp"] {
        let wish = json!({"output_format": format, "background": "transparent", "seed": 7});
        let answer = world.gateway.generate(wish).await;
        let cut_out = file(&answer).2.into_rgba8();
        let (corner, middle) = (cut_out.get_pixel(0, 0).0, cut_out.get_pixel(32, 32).0);
        assert_eq!((corner[3], middle[3]), (0, 255), "{format}");
        assert_eq!(middle[..3], opaque.get_pixel(32, 32).0, "{format}");
        assert_eq!(described(&answer), (&json!(format), &json!("transparent")));
    }
}

#[tokio::test]
async fn a_pod_without_a_cut_out_model_says_so_and_draws_all_the_rest() {
    let world = World::ready(FAST).await;
    let answer = world.gateway.generate(json!({"background": "transparent"})).await;
    let error = &answer.body["error"];
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "unsupported_value"));
    assert_eq!(error["param"], "background");
    assert!(error["message"].as_str().unwrap().contains("--cut-out"), "{error}");
    let opaque = world.gateway.generate(json!({"background": "opaque"})).await;
    assert_eq!(opaque.status, StatusCode::OK, "{}", opaque.body);
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_by_name() {
    let world = world().await;
    for (wish, param) in [
        (json!({"background": "transparent", "output_format": "jpeg"}), "background"),
        (json!({"output_compression": 50}), "output_compression"),
        (json!({"output_format": "gif"}), "output_format"),
    ] {
        let answer = world.gateway.generate(wish).await;
        assert_eq!((answer.status, &answer.body["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(param)));
    }
}

#[derive(Debug)]
struct Broken;

impl CutOut for Broken {
    fn mask(&self, _: &Picture) -> Result<Mask, PipelineError> {
        Err(PipelineError::NotFinite)
    }
}

#[tokio::test]
async fn a_cut_out_that_fails_is_an_error_and_not_a_picture_with_its_background() {
    let world = World::start_with(cutting(Broken), FAST).await.with_model().await;
    let answer = world.gateway.generate(json!({"background": "transparent"})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
    assert_eq!(world.gateway.generate(json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_picture_comes_back_four_times_as_large_if_asked_and_so_do_its_previews() {
    let finishing = Finishing { cut_out: Some(Arc::new(FakeCutOut)), upscale: Some(Arc::new(Repeat)), seal: None };
    let world = World::start_with(finishing, FAST).await.with_model().await;
    let drawn = file(&world.gateway.generate(json!({"seed": 7, "size": "64x32"})).await).2.into_rgb8();
    for (wish, channels) in [(json!({}), 3), (json!({"background": "transparent"}), 4)] {
        let mut wish = wish;
        (wish["seed"], wish["size"], wish["upscale"]) = (json!(7), json!("64x32"), json!(4));
        let answer = world.gateway.generate(wish).await;
        assert_eq!(answer.body["size"], "256x128");
        let large = file(&answer).2;
        assert_eq!((large.width(), large.height(), large.color().channel_count()), (256, 128, channels));
        let (small, large) = (drawn.get_pixel(31, 15), large.into_rgb8());
        assert!((124..128).all(|x| large.get_pixel(x, 62) == small), "the picture that was drawn");
    }
    // Slow enough that the preview is out before the picture is there, which would make it needless.
    let finishing = Finishing { cut_out: None, upscale: Some(Arc::new(Repeat)), seal: None };
    let world = World::start_with(finishing, &["--fake-step-ms=20000"]).await.with_model().await;
    let streamed = json!({"size": "64x32", "steps": 2, "upscale": 4, "stream": true, "partial_images": 1});
    let events = world.gateway.generate(streamed).await.body;
    let events = events.as_str().unwrap();
    assert_eq!(events.matches("\"size\":\"256x128\"").count(), 2, "{events:.400}");
}

#[tokio::test]
async fn a_pod_without_an_upscaler_says_so() {
    let world = World::ready(FAST).await;
    let answer = world.gateway.generate(json!({"upscale": 4})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "unsupported_value"));
    assert_eq!(answer.body["error"]["param"], "upscale");
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("--upscale"), "{}", answer.body);
}
