//! Format, compression and background of a picture are as the request says, and what can't be done is said before
//! anything is drawn.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_inference::cut_out::{CutOut, FakeCutOut, Mask};
use easel_inference::pipeline::{Picture, PipelineError};
use hyper::StatusCode;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use serde_json::{Value, json};

use crate::support::{Answer, World};

const FAST: &[&str] = &["--fake-step-ms=1"];

async fn world() -> World {
    World::start_with(Some(Arc::new(FakeCutOut)), FAST).await.with_model().await
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
    let world = World::start_with(Some(Arc::new(Broken)), FAST).await.with_model().await;
    let answer = world.gateway.generate(json!({"background": "transparent"})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
    assert_eq!(world.gateway.generate(json!({})).await.status, StatusCode::OK);
}
