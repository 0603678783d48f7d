//! What a client gets when all is well, on every path.

use easel_api::images::{ImagesResponse, ModelList};
use reqwest::{Method, header};
use serde_json::json;

use crate::fake_pod::Act;
use crate::stage::{Stage, error_of, prompt, soon};

#[tokio::test]
async fn a_picture_comes_with_what_it_cost_and_where_it_was_drawn() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let body = json!({"model": "tiny", "prompt": "a lighthouse", "user": "u-1"});
    let response = stage.draw(&body).header("x-request-id", "req-7").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("x-request-id"), "req-7");
    assert_eq!(header("x-easel-model"), "demo/tiny");
    assert_eq!(header("x-easel-pool"), "cpu");
    assert_eq!(header("x-easel-revision"), "sha256:beef");
    assert_eq!(header("x-easel-predicted-ms"), "40");
    assert_eq!(header("x-easel-attempts"), "1");
    assert!(header("x-easel-cost-usd").parse::<f64>().unwrap() > 0.0);
    assert!(header("server-timing").starts_with("queue;dur=") && header("server-timing").ends_with("steps;dur=7"));
    let picture: ImagesResponse = response.json().await.unwrap();

    let call = &pod.calls()[0];
    assert_eq!(call.headers["x-request-id"], "req-7");
    assert!(call.headers["x-easel-deadline-ms"].to_str().unwrap().parse::<u64>().unwrap() <= 120_000);
    assert_eq!(call.body["model"], "demo/tiny");
    assert_eq!(call.body["seed"], picture.data[0].seed);
    assert_eq!(call.body.get("user"), None, "who asks is no pod's business");
    stage.metric("easel_gateway_requests_total{model=\"demo/tiny\",outcome=\"ok\"}", 1).await;
    stage.metric("easel_gateway_in_flight", 0).await;
}

#[tokio::test]
async fn what_the_model_does_not_know_of_a_prompt_is_told_to_the_client() {
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", [Act::Warn("the model does not know: \"zebra\""), Act::Draw]).await;
    let warned = stage.draw(&prompt()).send().await.unwrap();
    assert_eq!(warned.headers()["x-easel-warning"], "the model does not know: \"zebra\"");
    let silent = stage.draw(&prompt()).send().await.unwrap();
    assert!(!silent.headers().contains_key("x-easel-warning"));
}

#[tokio::test]
async fn a_seed_that_the_client_chose_is_kept() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let body = json!({"model": "demo/tiny", "prompt": "a", "seed": u64::MAX});
    assert_eq!(stage.draw(&body).send().await.unwrap().status(), 200);
    assert_eq!(pod.calls()[0].body["seed"], u64::MAX);
}

#[tokio::test]
async fn models_are_listed_by_the_shortest_name_that_means_them() {
    let stage = Stage::new(&[]).await;
    stage.add_model("team", "tiny");
    stage.add_model("team", "flux");
    let list: ModelList = stage.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let ids: Vec<&str> = list.data.iter().map(|model| &*model.id).collect();
    assert_eq!(ids, ["demo/tiny", "flux", "team/tiny"]);
    for (path, owner) in [("flux", "team"), ("team/tiny", "team"), ("demo%2Ftiny", "demo")] {
        let response = stage.get(&format!("/v1/models/{path}")).send().await.unwrap();
        let model: serde_json::Value = response.json().await.unwrap();
        assert_eq!((model["object"].as_str(), model["owned_by"].as_str()), (Some("model"), Some(owner)), "{path}");
    }
    let (status, error) = error_of(stage.get("/v1/models/sdxl").send().await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_the_envelope() {
    let stage = Stage::new(&[]).await;
    let (status, error) =
        error_of(stage.post("/v1/images/sketches").body(vec![0; 4 << 20]).send().await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("unknown_url")));

    let response = stage.get("/v1/images/generations").send().await.unwrap();
    assert_eq!(response.headers()[header::ALLOW], "POST");
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(error_of(response).await.0, 405);

    let client = reqwest_with(&stage, Method::OPTIONS, "/v1/models").await;
    assert_eq!((client.status().as_u16(), client.headers()[header::ALLOW].to_str().unwrap()), (204, "GET,HEAD"));
    assert_eq!(reqwest_with(&stage, Method::HEAD, "/v1/models").await.status(), 200);
    let hint = stage.get("/").send().await.unwrap().text().await.unwrap();
    assert!(hint.contains("/v1/images/generations"), "{hint}");
}

async fn reqwest_with(stage: &Stage, method: Method, path: &str) -> reqwest::Response {
    let (client, request) = stage.get(path).build_split();
    let mut request = request.unwrap();
    *request.method_mut() = method;
    client.execute(request).await.unwrap()
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_takes_no_new_ones() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Hold]).await;
    let held = stage.begin(&prompt());
    pod.called(1).await;
    stage.shutdown.cancel();
    let refused = async { while tokio::net::TcpStream::connect(stage.address).await.is_ok() {} };
    soon(refused).await;
    assert!(!stage.serving.is_finished());
    pod.release();
    assert_eq!(held.await.unwrap().status(), 200);
    soon(stage.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_time_is_cut() {
    let stage = Stage::new(&["--gateway-drain-seconds", "0"]).await;
    let pod = stage.add_pod("a", [Act::Hold]).await;
    let request = stage.draw(&prompt());
    let held = tokio::spawn(async move { request.send().await.is_err() });
    pod.called(1).await;
    stage.shutdown.cancel();
    soon(stage.serving).await.unwrap().unwrap();
    assert!(soon(held).await.unwrap());
    pod.hung_up(1).await;
}
