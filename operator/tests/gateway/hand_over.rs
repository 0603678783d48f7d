//! What a pod had done of a picture when it went is not done again by the next one.

use std::collections::BTreeMap;

use easel_api::error::ApiError;
use easel_api::frames::{Frame, Head, Snapshot};
use serde_json::json;

use crate::fake_pod::{Act, Ending};
use crate::stage::{Stage, error_of, prompt, soon};

fn snapshot(picture: u32, content: &'static [u8]) -> Snapshot {
    Snapshot { picture, bytes: content.into() }
}

fn moves(frames: impl IntoIterator<Item = Snapshot>) -> Act {
    Act::Frames(frames.into_iter().map(Frame::Snapshot).chain([Frame::Moved]).collect(), Ending::Whole)
}

#[tokio::test]
async fn a_picture_goes_on_from_its_newest_snapshot_whether_its_pod_went_or_was_lost() {
    let frames = [snapshot(0, b"step 5"), snapshot(0, b"step 10")];
    let lost = Act::Frames(frames.clone().map(Frame::Snapshot).into(), Ending::Broken);
    for (act, reason) in [(moves(frames), "moved"), (lost, "lost")] {
        let stage = Stage::new(&[]).await;
        let (first, second) = (stage.add_pod("a", [act]).await, stage.add_pod("b", []).await);
        let response = soon(stage.draw(&prompt()).send()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["x-easel-attempts"].to_str().unwrap()), (200, "2"));
        let (before, after) = (&first.calls()[0], &second.calls()[0]);
        assert_eq!((before.path.as_str(), before.handed.is_some()), ("/v1/images/generations", false));
        assert_eq!(after.path, "/engine/v1/handover");
        assert_eq!(after.headers["content-type"], "application/vnd.easel.frames");
        let (path, snapshots) = after.handed.as_ref().unwrap();
        assert_eq!((path, snapshots), (&before.path, &vec![snapshot(0, b"step 10")]));
        assert_eq!(before.body, after.body, "the seed and all else stays");
        for name in ["x-request-id", "x-easel-priority", "x-easel-snapshot-steps"] {
            assert_eq!(before.headers[name], after.headers[name], "{name}");
        }
        stage.metric(&format!("easel_gateway_retries_total{{reason=\"{reason}\"}}"), 1).await;
        stage.metric("easel_gateway_resumed_total", 1).await;
        stage.metric("easel_gateway_snapshots_total", 2).await;
    }
}

#[tokio::test]
async fn a_request_moves_with_all_its_pictures_as_often_as_pods_go() {
    let stage = Stage::new(&["--max-attempts=1"]).await;
    let all = [snapshot(0, b"0"), snapshot(1, b"1"), snapshot(2, b"2")];
    let pods = [
        stage.add_pod("a", [moves(all.clone())]).await,
        stage.add_pod("b", [moves([snapshot(1, b"1, further")])]).await,
        stage.add_pod("c", [moves([])]).await,
        stage.add_pod("d", []).await,
    ];
    let response = soon(stage.draw(&json!({"prompt": "a", "n": 3})).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["x-easel-attempts"].to_str().unwrap()), (200, "4"));
    let last = pods[3].calls()[0].handed.clone().unwrap().1;
    assert_eq!(last, [snapshot(0, b"0"), snapshot(1, b"1, further"), snapshot(2, b"2")]);
}

#[tokio::test]
async fn a_request_that_waited_when_its_pod_went_is_drawn_from_the_beginning() {
    let stage = Stage::new(&[]).await;
    let (_first, second) = (stage.add_pod("a", [moves([])]).await, stage.add_pod("b", []).await);
    assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200);
    assert!(second.calls()[0].handed.is_none());
    assert!(!stage.metrics().contains("easel_gateway_resumed_total 1"));
}

#[tokio::test]
async fn an_answer_in_frames_is_to_the_client_as_any_other() {
    let stage = Stage::new(&["--snapshot-steps=7"]).await;
    let pod = stage.add_pod("a", [Act::DrawFramed]).await;
    let framed = stage.draw(&prompt()).send().await.unwrap();
    assert_eq!(framed.headers()["x-easel-warning"], "framed");
    assert_eq!(framed.headers()["content-type"], "application/json");
    let framed: serde_json::Value = framed.json().await.unwrap();
    assert_eq!(framed["data"][0]["seed"], pod.calls()[0].body["seed"]);
    assert_eq!(pod.calls()[0].headers["x-easel-snapshot-steps"], "7");
}

#[tokio::test]
async fn an_error_in_frames_means_what_it_means_without() {
    let refusal = ApiError::invalid("prompt", "too_many_tokens", "the prompt has 80 tokens; at most 77");
    let body = serde_json::to_vec(&refusal.envelope()).unwrap();
    let head = Frame::Head(Head { status: 400, headers: BTreeMap::new() });
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", [Act::Frames(vec![head, Frame::Body(body.into()), Frame::End], Ending::Whole)]).await;
    let (status, error) = error_of(soon(stage.draw(&prompt()).send()).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("too_many_tokens")));
}

#[tokio::test]
async fn an_answer_that_ends_before_its_last_frame_is_a_lost_pod() {
    let head = Frame::Head(Head { status: 200, headers: BTreeMap::new() });
    let stage = Stage::new(&[]).await;
    let half = Act::Frames(vec![head, Frame::Body("{".into())], Ending::Whole);
    let (_first, second) = (stage.add_pod("a", [half]).await, stage.add_pod("b", []).await);
    assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200);
    assert_eq!(second.calls().len(), 1);
    stage.metric("easel_gateway_retries_total{reason=\"lost\"}", 1).await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_sends_the_request_on_without_its_snapshots() {
    let snapshot_of = |picture| Frame::Snapshot(snapshot(picture, b"x"));
    for nonsense in [Frame::End, Frame::Body("{".into()), snapshot_of(1)] {
        let stage = Stage::new(&[]).await;
        let garbled = Act::Frames(vec![snapshot_of(0), nonsense.clone()], Ending::Whole);
        let (_first, second) = (stage.add_pod("a", [garbled]).await, stage.add_pod("b", []).await);
        assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200, "{nonsense:?}");
        assert!(second.calls()[0].handed.is_none(), "{nonsense:?}");
        stage.metric("easel_gateway_retries_total{reason=\"failed\"}", 1).await;
    }
}

#[tokio::test]
async fn a_request_that_kills_two_pods_is_stopped_however_far_it_came() {
    let lost = |content| Act::Frames(vec![Frame::Snapshot(snapshot(0, content))], Ending::Broken);
    let stage = Stage::new(&[]).await;
    let pods =
        [stage.add_pod("a", [lost(b"1")]).await, stage.add_pod("b", [lost(b"2")]).await, stage.add_pod("c", []).await];
    let (status, error) = error_of(soon(stage.draw(&prompt()).send()).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (502, Some("request_quarantined")));
    assert_eq!(pods.map(|pod| pod.calls().len()), [1, 1, 0]);
}

#[tokio::test]
async fn without_memory_for_snapshots_pictures_are_drawn_all_the_same() {
    let stage = Stage::new(&["--snapshot-memory-mib=0"]).await;
    let act = moves([snapshot(0, b"step 5"), snapshot(0, b"step 10")]);
    let (_first, second) = (stage.add_pod("a", [act]).await, stage.add_pod("b", [Act::DrawFramed]).await);
    assert_eq!(soon(stage.draw(&prompt()).send()).await.unwrap().status(), 200);
    assert!(second.calls()[0].handed.is_none());
    stage.metric("easel_gateway_snapshots_dropped_total", 2).await;
}
