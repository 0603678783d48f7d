//! A request gets its pictures as PNG files that say how they were drawn.

use std::time::{Duration, Instant};

use base64::Engine as _;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{MODEL, World, generation};

type Decoded = (Vec<u8>, Vec<(String, String)>);

fn decode(image: &Value) -> Decoded {
    let bytes = base64::engine::general_purpose::STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let texts = reader.info().utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
    (pixels, texts.collect())
}

#[tokio::test]
async fn a_picture_is_a_valid_png_that_says_how_it_was_drawn() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let digest = world.model(MODEL).checkpoint.digest;
    let answer = world.gateway.generate(json!({"prompt": "a cät", "seed": 7, "size": "32x64", "steps": 3})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("x-easel-model-digest"), digest);
    for part in ["queue;dur=", "encode;dur=", "denoise;dur=", "decode;dur="] {
        assert!(answer.header("server-timing").contains(part), "{part}");
    }
    let (pixels, texts) = decode(&answer.body["data"][0]);
    assert_eq!(pixels.len(), 32 * 64 * 3);
    let parameters = &texts.iter().find(|(keyword, _)| keyword == "parameters").unwrap().1;
    assert!(
        parameters.starts_with("a cät\nSteps: 3, Sampler: DDIM, CFG scale: 5, Seed: 7, Size: 32x64"),
        "{parameters}"
    );
    let easel = &texts.iter().find(|(keyword, _)| keyword == "easel").unwrap().1;
    let easel: Value = serde_json::from_str(easel).unwrap();
    assert_eq!((&easel["model"], &easel["digest"], &easel["seed"]), (&json!(MODEL), &json!(digest), &json!(7)));
    let usage = &answer.body["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(4), &json!(4 * 8)));
    assert_eq!((&answer.body["size"], &answer.body["output_format"]), (&json!("32x64"), &json!("png")));
}

#[tokio::test]
async fn three_pictures_have_seeds_counted_up_and_each_seed_draws_its_picture_again() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let three = world.gateway.generate(json!({"n": 3, "seed": 40})).await.body;
    let seeds: Vec<_> = three["data"].as_array().unwrap().iter().map(|image| image["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [40, 41, 42]);
    let again = world.gateway.generate(json!({"seed": 42})).await.body;
    assert_eq!(decode(&again["data"][0]).0, decode(&three["data"][2]).0);
    assert_ne!(decode(&three["data"][0]).0, decode(&three["data"][1]).0);
}

#[tokio::test]
async fn a_request_without_a_seed_is_told_the_one_that_was_picked() {
    let world = World::ready(&["--fake-step-ms=1"]).await;
    let first = world.gateway.generate(json!({})).await.body;
    let again = world.gateway.generate(json!({"seed": first["data"][0]["seed"]})).await.body;
    assert_eq!(first["data"][0]["b64_json"], again["data"][0]["b64_json"]);
}

#[tokio::test]
async fn requests_of_different_shapes_and_steps_are_drawn_at_the_same_time() {
    let world = World::ready(&["--fake-step-ms=64"]).await;
    let wishes =
        (0u32..12).map(|i| json!({"size": if i % 2 == 0 { "64x64" } else { "32x32" }, "steps": 1 + i, "seed": i}));
    let answers = futures::future::join_all(wishes.map(|wish| world.gateway.generate(wish))).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!((answer.status, &answer.body["data"][0]["seed"]), (StatusCode::OK, &json!(i)));
    }
}

#[tokio::test]
async fn a_deadline_that_passes_is_answered_at_the_next_step() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let mut request = generation(&json!({"steps": 1000}));
    request.headers_mut().insert("x-easel-deadline-ms", 100.into());
    let started = Instant::now();
    let answer = world.gateway.send(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
    assert!(started.elapsed() < Duration::from_secs(5), "1,000 steps take 10 s");
    world.operator.report_until(|report| report.running == 0).await;
}
