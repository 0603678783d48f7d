//! A client that asks for a stream sees each picture while it is drawn, in OpenAI's events.

use std::io::Cursor;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use easel_api::images::EDITS_PATH;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use image::{DynamicImage, ImageReader};
use serde_json::{Value, json};

use crate::support::{Client, MODEL, PATIENCE, World, checkpoint, desired, eventually, generation, is_ready};

const FAST: &[&str] = &["--fake-step-ms=1"];

struct Stream {
    response: Response<Incoming>,
    read: Vec<u8>,
}

impl Stream {
    async fn begin(client: &Client, body: &Value) -> Self {
        Self::of(client.try_send(generation(body)).await.unwrap())
    }

    fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, read: Vec::new() }
    }

    /// The next event's name and body.
    async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("no event came")
    }

    async fn read(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(parsed(std::str::from_utf8(&event).unwrap()));
            }
            let Some(frame) = self.response.frame().await else {
                assert!(self.read.is_empty(), "the stream ends in the middle of an event");
                return None;
            };
            self.read.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    async fn all(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn parsed(event: &str) -> (String, Value) {
    let (name, data) = event.trim_end().split_once('\n').unwrap();
    let name = name.strip_prefix("event: ").unwrap().to_owned();
    (name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap())
}

fn pixels(event: &Value) -> DynamicImage {
    let bytes = STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
    ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap().decode().unwrap()
}

fn off(left: &DynamicImage, right: &DynamicImage) -> u64 {
    let pairs = left.as_bytes().iter().zip(right.as_bytes());
    pairs.map(|(left, right)| u64::from(left.abs_diff(*right))).sum()
}

#[tokio::test]
async fn previews_come_before_the_picture_and_ever_closer_to_it() {
    // Steps of 20 ms leave time to write a preview before the next; on a busy machine one may be missing.
    let wish = json!({"stream": true, "partial_images": 3, "steps": 20, "seed": 7});
    let world = World::ready(&["--fake-step-ms=1280"]).await;
    let events = Stream::begin(&world.gateway, &wish).await.all().await;
    let ((last_name, last), previews) = events.split_last().unwrap();
    assert_eq!((last_name.as_str(), last.get("partial_image_index")), ("image_generation.completed", None));
    let indices: Vec<u64> = previews.iter().map(|(_, event)| event["partial_image_index"].as_u64().unwrap()).collect();
    assert!(indices.is_sorted_by(|a, b| a < b) && indices.last() == Some(&2), "{indices:?}");
    assert!(previews.iter().all(|(name, _)| name == "image_generation.partial_image"));
    for (name, event) in &events {
        assert_eq!(event["type"], json!(name));
        assert_eq!(
            (&event["seed"], &event["size"], &event["output_format"]),
            (&json!(7), &json!("64x64"), &json!("png"))
        );
        assert_eq!((&event["quality"], &event["background"]), (&json!("auto"), &json!("opaque")));
        assert!(event["created_at"].as_u64().unwrap() > 1_700_000_000);
    }
    let whole = world.gateway.generate(json!({"steps": 20, "seed": 7})).await.body;
    assert_eq!(last["b64_json"], whole["data"][0]["b64_json"], "the same picture as without a stream");
    assert_eq!(last["usage"], whole["usage"]);
    let picture = pixels(last);
    let distances: Vec<u64> = events.iter().map(|(_, event)| off(&pixels(event), &picture)).collect();
    assert!(distances.is_sorted_by(|early, late| early > late), "{distances:?}");
}

#[tokio::test]
async fn the_first_preview_is_there_while_the_picture_is_still_drawn() {
    // 1,000 steps of 10 ms.
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let wish = json!({"stream": true, "partial_images": 3, "steps": 1000});
    let mut stream = Stream::begin(&world.gateway, &wish).await;
    assert_eq!(stream.next().await.unwrap().0, "image_generation.partial_image");
    assert_eq!(world.operator.report_until(|report| report.running == 1).await.running, 1);
    drop(stream);
    world.operator.report_until(|report| report.running == 0 && report.waiting == 0).await;
    let counted = async || world.metrics().await.contains("requests_total{outcome=\"cancelled\"} 1");
    eventually("the count of cancelled requests", counted).await;
}

#[tokio::test]
async fn each_picture_of_several_is_completed_once_and_usage_adds_up() {
    let world = World::ready(FAST).await;
    let wish = json!({"stream": true, "n": 3, "seed": 7, "negative_prompt": "a dog"});
    let events = Stream::begin(&world.gateway, &wish).await.all().await;
    let seeds: Vec<u64> = events.iter().map(|(_, event)| event["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [7, 8, 9], "{events:?}");
    assert!(events.iter().all(|(name, _)| name == "image_generation.completed"));
    let whole = world.gateway.generate(json!({"n": 3, "seed": 7, "negative_prompt": "a dog"})).await.body;
    for field in ["total_tokens", "input_tokens", "output_tokens"] {
        let sum: u64 = events.iter().map(|(_, event)| event["usage"][field].as_u64().unwrap()).sum();
        assert_eq!(json!(sum), whole["usage"][field], "{field}");
    }
    let trailers: Vec<bool> = events.iter().map(|(_, event)| event.get("trailers").is_some()).collect();
    assert_eq!(trailers, [false, false, true]);
    let trailers = &events[2].1["trailers"];
    assert!(trailers["server-timing"].as_str().unwrap().contains("denoise;dur="), "{trailers}");
    assert!(trailers["x-easel-model-digest"].as_str().unwrap().starts_with("sha256:"), "{trailers}");
    let counted = async || world.metrics().await.contains("requests_total{outcome=\"drawn\"} 2");
    eventually("the count of drawn requests", counted).await;
}

#[tokio::test]
async fn previews_are_files_of_the_format_that_is_asked_for() {
    let world = World::ready(&["--fake-step-ms=1280"]).await;
    for (format, magic) in [("jpeg", "/9j/"), ("webp", "UklGR")] {
        let wish = json!({"stream": true, "partial_images": 1, "output_format": format});
        let events = Stream::begin(&world.gateway, &wish).await.all().await;
        assert_eq!(events.len(), 2);
        for (_, event) in events {
            assert!(event["b64_json"].as_str().unwrap().starts_with(magic), "{format}");
            assert_eq!(event["output_format"], format);
        }
    }
}

#[tokio::test]
async fn an_edit_has_events_of_its_own() {
    let world = World::start(&["--fake-step-ms=1280"]).await;
    let class = "StableDiffusionInstructPix2PixPipeline";
    let model = desired(MODEL, checkpoint(&world.folder.path().join("edits"), class));
    world.operator.hold(1, vec![model]).await;
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    let body = json!({"model": MODEL, "prompt": "in red", "stream": true, "partial_images": 1,
        "images": [{"image_url": red()}]});
    let request = Request::post(EDITS_PATH).header("content-type", "application/json");
    let response = world.gateway.try_send(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let names: Vec<String> = Stream::of(response).all().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["image_edit.partial_image", "image_edit.completed"]);
}

fn red() -> String {
    let image = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(64, 64, image::Rgb([200, 0, 100])));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(bytes.into_inner()))
}

#[tokio::test]
async fn what_fails_before_the_first_event_has_its_status_and_what_fails_later_is_an_event() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let unknown = world.gateway.generate(json!({"stream": true, "model": "art/nobody"})).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "model_not_resident"));
    let wish = json!({"stream": true, "partial_images": 3, "steps": 1000});
    let mut request = generation(&wish);
    request.headers_mut().insert("x-request-id", "r-1".parse().unwrap());
    let mut stream = Stream::of(world.gateway.try_send(request).await.unwrap());
    assert_eq!(stream.next().await.unwrap().0, "image_generation.partial_image");
    let cancel = Request::delete("/engine/v1/requests/r-1").body(Body::empty()).unwrap();
    assert_eq!(world.gateway.send(cancel).await.status, StatusCode::NO_CONTENT);
    let (name, event) = loop {
        let (name, event) = stream.next().await.unwrap();
        if name != "image_generation.partial_image" {
            break (name, event);
        }
    };
    assert_eq!((name.as_str(), &event["error"]["code"]), ("error", &json!("request_cancelled")));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_pod_that_stops_finishes_the_streams_that_it_has_begun() {
    let world = World::ready(&["--fake-step-ms=640"]).await;
    let wish = json!({"stream": true, "partial_images": 1, "steps": 60});
    let mut stream = Stream::begin(&world.gateway, &wish).await;
    assert_eq!(stream.next().await.unwrap().0, "image_generation.partial_image");
    let stopping = tokio::spawn(world.pod.drain());
    assert_eq!(stream.next().await.unwrap().0, "image_generation.completed");
    assert_eq!(stream.next().await, None);
    assert!(stopping.await.unwrap(), "nothing was cut off");
}
