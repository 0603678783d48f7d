//! What breaks a rule is answered with OpenAI's envelope, and a message that says the rule.

use axum::body::Body;
use easel_api::images::{GENERATIONS_PATH, MAX_GENERATION_BODY};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::support::{World, generation};

#[tokio::test]
async fn bad_fields_are_named() {
    let world = World::ready(&[]).await;
    for (body, param, code) in [
        (json!({"prompt": " "}), "prompt", "empty_prompt"),
        (json!({"n": 0}), "n", "invalid_value"),
        (json!({"n": 9}), "n", "invalid_value"),
        (json!({"size": "1024x1024"}), "size", "invalid_value"),
        (json!({"size": "65x64"}), "size", "invalid_value"),
        (json!({"steps": 1001}), "steps", "invalid_value"),
        (json!({"n": "two"}), "n", "invalid_type"),
        (json!({"partial_images": 1}), "partial_images", "unsupported_value"),
        (json!({"colour": "red"}), "colour", "unknown_parameter"),
        (json!({"model": null}), "model", "missing_model"),
    ] {
        let answer = world.gateway.generate(body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.body);
        let error = &answer.body["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{body}");
        assert_eq!(error["type"], json!("invalid_request_error"));
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_by_what_is_wrong_with_them() {
    let world = World::ready(&[]).await;
    let post =
        |kind: &str, body: Body| Request::post(GENERATIONS_PATH).header("content-type", kind).body(body).unwrap();
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(MAX_GENERATION_BODY as usize));
    for (request, status, code) in [
        (post("application/json", "{".into()), 400, "invalid_body"),
        (post("text/plain", "{}".into()), 415, "unsupported_media_type"),
        (post("application/json", large.into()), 413, "body_too_large"),
    ] {
        let answer = world.gateway.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code));
    }
}

#[tokio::test]
async fn a_model_that_is_not_here_is_a_404_that_the_gateway_can_tell() {
    let world = World::ready(&[]).await;
    let answer = world.gateway.generate(json!({"model": "art/other"})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "model_not_resident"));
}

#[tokio::test]
async fn a_deadline_that_is_not_a_number_is_refused() {
    let world = World::ready(&[]).await;
    let mut request = generation(&json!({}));
    request.headers_mut().insert("x-easel-deadline-ms", "soon".parse().unwrap());
    let answer = world.gateway.send(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid_value"));
}
