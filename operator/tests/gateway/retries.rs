//! A pod that fails costs a request time, not its answer; a request that fails pods is stopped.

use easel_api::error::ApiError;
use serde_json::json;

use crate::fake_pod::Act;
use crate::stage::{Stage, error_of, prompt, soon};

#[tokio::test]
async fn a_request_whose_pod_dies_is_drawn_by_another_with_the_same_seed() {
    for death in [Act::Die, Act::DieMidAnswer] {
        let stage = Stage::new(&[]).await;
        let (first, second) = (stage.add_pod("a", [death]).await, stage.add_pod("b", []).await);
        let response = soon(stage.draw(&prompt()).send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-easel-attempts"], "2");
        let (before, after) = (&first.calls()[0].body, &second.calls()[0].body);
        assert_eq!(before, after, "the seed and all else stays");
        assert!(before["seed"].is_u64());
        stage.metric("easel_gateway_retries_total{reason=\"lost\"}", 1).await;
    }
}

#[tokio::test]
async fn faults_of_a_pod_send_the_request_to_another() {
    let not_resident = ApiError { code: Some("model_not_resident".into()), ..ApiError::model_not_found("demo/tiny") };
    for fault in [
        ApiError::unavailable("draining", "the pod is draining", 1),
        ApiError::unavailable("overloaded", "not now", 1),
        ApiError::queue_full("full", 1),
        ApiError::internal("out of memory"),
        ApiError::forbidden("who are you"),
        not_resident,
    ] {
        let stage = Stage::new(&[]).await;
        let (first, second) = (stage.add_pod("a", [Act::Say(fault.clone())]).await, stage.add_pod("b", []).await);
        let response = soon(stage.draw(&prompt()).send()).await.unwrap();
        assert_eq!(response.status(), 200, "{fault:?}");
        assert_eq!((first.calls().len(), second.calls().len()), (1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn the_clients_own_fault_is_passed_on_and_not_tried_again() {
    let stage = Stage::new(&[]).await;
    let refusal = ApiError::invalid("prompt", "too_many_tokens", "the prompt has 80 tokens; at most 77");
    let first = stage.add_pod("a", [Act::Say(refusal)]).await;
    let second = stage.add_pod("b", []).await;
    let (status, error) = error_of(stage.draw(&prompt()).send().await.unwrap()).await;
    assert_eq!(
        (status, error["param"].as_str(), error["code"].as_str()),
        (400, Some("prompt"), Some("too_many_tokens"))
    );
    assert_eq!((first.calls().len(), second.calls().len()), (1, 0));
}

#[tokio::test]
async fn a_request_whose_only_pod_dies_waits_for_the_next_one() {
    let stage = Stage::new(&[]).await;
    let first = stage.add_pod("a", [Act::Die]).await;
    let waiting = stage.begin(&prompt());
    first.called(1).await;
    stage.metric("easel_gateway_waiting", 1).await;
    stage.remove("a");
    let second = stage.add_pod("b", []).await;
    assert_eq!(waiting.await.unwrap().status(), 200);
    assert_eq!(first.calls()[0].body, second.calls()[0].body);
    assert_eq!(first.calls().len(), 1);
}

#[tokio::test]
async fn a_pod_that_is_gone_before_the_table_knows_is_asked_no_picture() {
    let stage = Stage::new(&[]).await;
    drop(stage.add_pod("a", []).await);
    let second = stage.add_pod("b", []).await;
    assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200);
    assert_eq!(second.calls().len(), 1);
    stage.metric("easel_gateway_retries_total{reason=\"unreachable\"}", 1).await;
}

#[tokio::test]
async fn a_request_that_has_killed_two_pods_gets_no_third() {
    let stage = Stage::new(&[]).await;
    let pods =
        [stage.add_pod("a", [Act::Die]).await, stage.add_pod("b", [Act::Die]).await, stage.add_pod("c", []).await];
    let (status, error) = error_of(soon(stage.draw(&prompt()).send()).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (502, Some("request_quarantined")));
    assert_eq!(pods.map(|pod| pod.calls().len()), [1, 1, 0]);
}

#[tokio::test]
async fn a_failure_on_every_pod_is_told_at_once() {
    let stage = Stage::new(&[]).await;
    let broken = || Act::Say(ApiError::internal("the picture is not finite"));
    let pods = [stage.add_pod("a", [broken()]).await, stage.add_pod("b", [broken()]).await];
    let response = soon(stage.draw(&prompt()).send()).await.unwrap();
    assert_eq!(response.headers()["x-easel-attempts"], "2");
    let (status, error) = error_of(response).await;
    assert_eq!((status, error["code"].as_str()), (502, Some("upstream_failed")));
    assert!(error["message"].as_str().unwrap().contains("not finite"), "{error}");
    assert_eq!(pods.map(|pod| pod.calls().len()), [1, 1]);
}

#[tokio::test]
async fn an_answer_longer_than_any_picture_is_not_read_to_its_end() {
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", [Act::Write(4 << 20)]).await;
    let (status, error) = error_of(soon(stage.draw(&prompt()).send()).await.unwrap()).await;
    assert_eq!(status, 502);
    assert!(error["message"].as_str().unwrap().contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_pod() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", [Act::Hold]).await;
    let request = stage.draw(&json!({"prompt": "a"}));
    let asking = tokio::spawn(request.send());
    pod.called(1).await;
    asking.abort();
    pod.hung_up(1).await;
    stage.metric("easel_gateway_requests_total{model=\"\",outcome=\"cancelled\"}", 1).await;
    stage.metric("easel_gateway_in_flight", 0).await;
}
