//! A picture steers a model with a `ControlNet`, as much as the request says; other models say that it can't.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::edits_pictures::{as_json, data_url, file, form, png, world_of};
use crate::support::MODEL;

const STEERED: &str = "StableDiffusionControlNetPipeline";

#[tokio::test]
async fn how_much_a_picture_steers_is_said_alike_in_a_form_and_in_json_and_shown_in_the_file() {
    let world = world_of(STEERED).await;
    let edges = png(64, 64, [255, 255, 255]);
    let fields =
        [("prompt", "a house"), ("model", MODEL), ("seed", "7"), ("control_scale", "0.5"), ("control_end", "0.8")];
    let parts: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let sent = world.gateway.send(form(&[&[("image", &edges[..])], &parts[..]].concat())).await;
    let same = json!({"images": [{"image_url": data_url(&edges)}], "prompt": "a house", "model": MODEL, "seed": 7,
        "control_scale": 0.5, "control_end": 0.8});
    let same = world.gateway.send(as_json(&same)).await;
    assert_eq!(sent.body["data"], same.body["data"]);

    let reader = file(&sent);
    let texts = &reader.info().utf8_text;
    let easel = texts.iter().find(|chunk| chunk.keyword == "easel").unwrap().get_text().unwrap();
    let easel: Value = serde_json::from_str(&easel).unwrap();
    let shown = ["control_scale", "control_start", "control_end"].map(|key| easel[key].clone());
    assert_eq!(shown, [json!(0.5), json!(0.0), json!(0.8)]);
}

#[tokio::test]
async fn a_model_with_a_controlnet_needs_a_picture_and_refuses_what_it_can_not_use() {
    let world = world_of(STEERED).await;
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("/v1/images/edits"), "{}", answer.body);
    let edges = png(64, 64, [255, 255, 255]);
    for (name, value) in [("mask", &edges[..]), ("strength", b"0.5"), ("control_scale", b"11"), ("control_start", b"1")]
    {
        let parts = [("image", &edges[..]), ("prompt", b"a"), ("model", MODEL.as_bytes()), (name, value)];
        let answer = world.gateway.send(form(&parts)).await;
        let found = (answer.status, answer.body["error"]["param"].as_str());
        assert_eq!(found, (StatusCode::BAD_REQUEST, Some(name)), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_model_without_a_controlnet_says_so() {
    for class in ["StableDiffusionPipeline", "StableDiffusionInstructPix2PixPipeline"] {
        let world = world_of(class).await;
        let picture = png(64, 64, [255, 0, 0]);
        let parts = [("image", &picture[..]), ("prompt", b"a"), ("model", MODEL.as_bytes()), ("control_scale", b"0.5")];
        let answer = world.gateway.send(form(&parts)).await;
        let error = &answer.body["error"];
        assert_eq!(
            (answer.status, error["param"].as_str()),
            (StatusCode::BAD_REQUEST, Some("control_scale")),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains("no ControlNet"), "{error}");
    }
}
