//! What a client gets wrong is told in OpenAI's envelope, and costs no pod anything.

use std::time::Duration;

use reqwest::header;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Stage, error_of, prompt, soon};

const PATH: &str = "/v1/images/generations";

#[tokio::test]
async fn bad_fields_are_refused_with_their_name_and_no_pod_is_asked() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let table = [
        (json!({"size": "63x64"}), 400, "size", "invalid_value"),
        (json!({"size": "128x128"}), 400, "size", "invalid_value"),
        (json!({"n": 0}), 400, "n", "invalid_value"),
        (json!({"n": 5}), 400, "n", "invalid_value"),
        (json!({"n": "two"}), 400, "n", "invalid_type"),
        (json!({"steps": 9}), 400, "steps", "invalid_value"),
        (json!({"prompt": "x".repeat(40_000)}), 400, "prompt", "prompt_too_long"),
        (json!({"prompt": " "}), 400, "prompt", "empty_prompt"),
        (json!({"colour": "red"}), 400, "colour", "unknown_parameter"),
        (json!({"partial_images": 2}), 400, "partial_images", "unsupported_value"),
        (json!({"stream": true, "partial_images": 4}), 400, "partial_images", "invalid_value"),
        (json!({"adapters": [{"name": "oil"}]}), 400, "adapters", "unknown_adapter"),
        (json!({"adapters": [{"name": "ink", "weight": 3}]}), 400, "adapters[0].weight", "invalid_value"),
        (json!({"model": "sdxl"}), 404, "model", "model_not_found"),
        (json!({"model": "other/tiny"}), 404, "model", "model_not_found"),
    ];
    for (fields, status, param, code) in table {
        let mut body = prompt();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (found, error) = error_of(stage.draw(&body).send().await.unwrap()).await;
        assert_eq!(
            (found, error["param"].as_str(), error["code"].as_str()),
            (status, Some(param), Some(code)),
            "{fields}"
        );
    }
    assert!(pod.calls().is_empty());
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let stage = Stage::new(&[]).await;
    for body in ["", "{", "[]", "null", "{\"prompt\": \"a\"} x", "\u{0}"] {
        let request = stage.post(PATH).header(header::CONTENT_TYPE, "application/json").body(body);
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{body}");
    }
    for kind in ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""] {
        let request = stage.post(PATH).header(header::CONTENT_TYPE, kind).body(prompt().to_string());
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (415, Some("unsupported_media_type")), "{kind}");
    }
}

#[tokio::test]
async fn a_content_type_may_have_parameters_and_any_case() {
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", []).await;
    let request = stage.post(PATH).header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(request.body(prompt().to_string()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn adapters_that_the_model_has_go_to_the_pod_and_others_are_refused_with_those_that_it_has() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let mut body = prompt();
    body["adapters"] = json!([{"name": "ink", "weight": 0.5}]);
    assert_eq!(stage.draw(&body).send().await.unwrap().status(), 200);
    assert_eq!(pod.calls()[0].body["adapters"], body["adapters"]);
    body["adapters"] = json!([{"name": "oil"}]);
    let (_, error) = error_of(stage.draw(&body).send().await.unwrap()).await;
    assert_eq!(error["message"], "this model has no adapter 'oil'; it has ink");
}

/// As Python's clients do: reading only when all is written, so that a connection reset before loses the answer.
#[tokio::test]
async fn a_client_that_sends_100_megabytes_before_it_looks_gets_its_413() {
    let stage = Stage::new(&[]).await;
    let megabyte = vec![b' '; 1 << 20];
    for framing in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunked = framing.contains("chunked");
        for _ in 0..100 {
            stream.write_all(if chunked { b"100000\r\n" } else { b"" }).await.unwrap();
            soon(stream.write_all(&megabyte)).await.unwrap();
            stream.write_all(if chunked { b"\r\n" } else { b"" }).await.unwrap();
        }
        stream.write_all(if chunked { b"0\r\n\r\n" } else { b"" }).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = soon(stream.read(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{framing}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_at_once() {
    let stage = Stage::new(&[]).await;
    let head = "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 104857600\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn a_deadline_must_be_a_number_of_milliseconds() {
    let stage = Stage::new(&[]).await;
    for value in ["0", "-1", "soon", "1.5", ""] {
        let request = stage.draw(&prompt()).header("x-easel-deadline-ms", value);
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, error["param"].as_str()), (400, Some("x-easel-deadline-ms")), "{value}");
    }
}

#[tokio::test]
async fn a_priority_and_a_tenant_are_checked_and_sent_on() {
    let stage = Stage::new(&[]).await;
    for (name, value) in [("x-easel-priority", "urgent"), ("x-easel-tenant", "a b")] {
        let (status, error) = error_of(stage.draw(&prompt()).header(name, value).send().await.unwrap()).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(name)));
    }
    let pod = stage.add_pod("a", []).await;
    let request = stage.draw(&prompt()).header("x-easel-priority", "low").header("x-easel-tenant", "team-a");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(stage.draw(&prompt()).send().await.unwrap().status(), 200);
    let [said, silent] = &pod.calls()[..] else { panic!("two calls") };
    assert_eq!(said.headers["x-easel-priority"], "low");
    assert_eq!(said.headers["x-easel-tenant"], "team-a");
    assert_eq!(silent.headers["x-easel-priority"], "normal");
    assert!(!silent.headers.contains_key("x-easel-tenant"));
}

#[tokio::test]
async fn a_request_to_a_route_is_drawn_by_its_backend_in_the_time_and_order_of_its_class() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    stage.add_route("paint-1", "demo/tiny", "live", Duration::from_secs(5));
    let asked = |class: &'static str| {
        stage.draw(&json!({"model": "paint-1", "prompt": "a cat"})).header("x-easel-class", class).send()
    };
    let response = asked("live").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-easel-model"]),
        (200, &"demo/tiny".parse().unwrap())
    );
    let call = &pod.calls()[0];
    let left: u64 = call.headers["x-easel-deadline-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=5000).contains(&left), "{left}");
    assert_eq!(call.headers["x-easel-priority"], "high");
    let (status, error) = error_of(asked("lvie").await.unwrap()).await;
    assert_eq!(
        (status, error["param"].as_str(), error["code"].as_str()),
        (400, Some("x-easel-class"), Some("unknown_class"))
    );
    let listed: Value = stage.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let names: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["paint-1", "tiny"]);
}

#[tokio::test]
async fn an_unclear_model_is_refused_with_the_names_to_choose_from() {
    let stage = Stage::new(&[]).await;
    stage.add_model("team", "tiny");
    let message = |body: Value| {
        let request = stage.draw(&body);
        async { error_of(request.send().await.unwrap()).await }
    };
    for body in [prompt(), json!({"prompt": "a"})] {
        let (status, error) = message(body).await;
        assert_eq!((status, error["param"].as_str()), (400, Some("model")));
        assert!(error["message"].as_str().unwrap().contains("demo/tiny, team/tiny"), "{error}");
    }
}

#[tokio::test]
async fn a_parked_model_and_an_incomplete_table_are_said_to_be_so() {
    let stage = Stage::new(&[]).await;
    stage.edit(|table| table.models.values_mut().for_each(|model| model.parked = true));
    let response = stage.draw(&prompt()).send().await.unwrap();
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, error) = error_of(response).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("model_parked")));

    stage.edit(|table| table.complete = false);
    for request in [stage.draw(&prompt()), stage.get("/v1/models"), stage.get("/v1/models/tiny")] {
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (503, Some("starting")));
    }
}
