//! Requests that no pod can take yet: how long they wait, how many, and in which order they go.

use easel_api::error::ApiError;
use easel_planner::ModelId;
use reqwest::header;
use serde_json::{Value, json};

use crate::fake_pod::Act;
use crate::stage::{Stage, error_of, prompt, soon};

#[tokio::test]
async fn a_pod_that_is_still_drawing_at_the_deadline_makes_a_504() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Hold]).await;
    let request = stage.draw(&prompt()).header("x-easel-deadline-ms", "300");
    let (status, error) = error_of(soon(request.send()).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (504, Some("deadline_exceeded")));
    pod.hung_up(1).await;
}

#[tokio::test]
async fn a_deadline_that_comes_in_the_queue_is_told_with_the_reason_of_the_wait() {
    let stage = Stage::new(&["--request-timeout", "1"]).await;
    let late = async || {
        let request = stage.draw(&prompt()).header("x-easel-deadline-ms", "100");
        let response = soon(request.send()).await.unwrap();
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        let (status, error) = error_of(response).await;
        assert_eq!(status, 503);
        error["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(late().await, "no_replica");
    let _pod = stage.add_pod("a", []).await;
    stage.edit_endpoint("a", |endpoint| endpoint.queued = endpoint.queue_limit);
    assert_eq!(late().await, "queue_full");
    stage.edit_endpoint("a", |endpoint| endpoint.draining = true);
    assert_eq!(late().await, "pods_draining");
    stage.edit_endpoint("a", |endpoint| {
        endpoint.draining = false;
        endpoint.ready.clear();
        endpoint.coming.insert(ModelId::new("demo/tiny"));
    });
    assert_eq!(late().await, "model_loading");
}

#[tokio::test]
async fn a_request_for_a_loading_model_is_drawn_as_soon_as_it_is_ready() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let model = ModelId::new("demo/tiny");
    stage.edit_endpoint("a", |endpoint| {
        endpoint.ready.clear();
        endpoint.coming.insert(model.clone());
    });
    let waiting = stage.begin(&prompt());
    stage.metric("easel_gateway_waiting", 1).await;
    assert!(pod.calls().is_empty());
    stage.edit_endpoint("a", |endpoint| {
        endpoint.ready.insert(model, None);
    });
    assert_eq!(waiting.await.unwrap().status(), 200);
    stage.metric("easel_gateway_waiting", 0).await;
}

#[tokio::test]
async fn more_than_may_wait_are_answered_429() {
    let stage = Stage::new(&["--max-waiting", "1"]).await;
    let first = stage.begin(&prompt());
    stage.metric("easel_gateway_waiting", 1).await;
    let response = soon(stage.draw(&prompt()).send()).await.unwrap();
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, error) = error_of(response).await;
    assert_eq!((status, error["code"].as_str()), (429, Some("queue_full")));
    let _pod = stage.add_pod("a", []).await;
    assert_eq!(first.await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_that_lost_its_pod_may_wait_even_when_no_more_may() {
    let stage = Stage::new(&["--max-waiting", "1"]).await;
    stage.add_model("demo", "unplaced");
    let waiting = stage.begin(&json!({"model": "unplaced", "prompt": "a"}));
    stage.metric("easel_gateway_waiting", 1).await;
    let _dying = stage.add_pod("a", [Act::Die]).await;
    let lost = stage.begin(&prompt());
    stage.metric("easel_gateway_waiting", 2).await;
    let _other = stage.add_pod("b", []).await;
    assert_eq!(lost.await.unwrap().status(), 200);
    waiting.abort();
    stage.metric("easel_gateway_waiting", 0).await;
}

#[tokio::test]
async fn a_parked_or_deleted_model_ends_the_wait() {
    let stage = Stage::new(&[]).await;
    for (status, code) in [(503, "model_parked"), (404, "model_not_found")] {
        let waiting = stage.begin(&prompt());
        stage.metric("easel_gateway_waiting", 1).await;
        stage.edit(|table| match status {
            503 => table.models.values_mut().for_each(|model| model.parked = true),
            _ => table.models.clear(),
        });
        let (found, error) = error_of(waiting.await.unwrap()).await;
        assert_eq!((found, error["code"].as_str()), (status, Some(code)));
        stage.metric("easel_gateway_waiting", 0).await;
        stage.edit(|table| table.models.values_mut().for_each(|model| model.parked = false));
    }
}

#[tokio::test]
async fn a_pod_gets_no_more_than_it_has_room_for_and_the_earliest_deadline_goes_first() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Hold, Act::Hold, Act::Hold, Act::Hold]).await;
    stage.edit_endpoint("a", |endpoint| endpoint.queue_limit = 1);
    let named = |name: &str| json!({"model": "tiny", "prompt": name});
    let mut asking = vec![stage.begin(&named("first"))];
    pod.called(1).await;
    for (waiting, name) in [(1, "second"), (2, "third")] {
        asking.push(stage.begin(&named(name)));
        stage.metric("easel_gateway_waiting", waiting).await;
    }
    let urgent = stage.draw(&named("urgent")).header("x-easel-deadline-ms", "60000");
    asking.push(tokio::spawn(async { urgent.send().await.unwrap() }));
    stage.metric("easel_gateway_waiting", 3).await;
    for count in 1..=4 {
        assert_eq!(pod.called(count).await.len(), count);
        pod.release();
    }
    for asking in asking {
        assert_eq!(soon(asking).await.unwrap().status(), 200);
    }
    let order: Vec<Value> = pod.calls().into_iter().map(|call| call.body["prompt"].clone()).collect();
    assert_eq!(order, ["first", "urgent", "second", "third"]);
}

#[tokio::test]
async fn a_busy_pod_is_asked_again_when_it_is_the_only_one() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Say(ApiError::queue_full("full", 1))]).await;
    assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200);
    assert_eq!(pod.calls().len(), 2);
}
