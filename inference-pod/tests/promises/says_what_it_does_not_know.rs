//! A prompt without a word that the model was trained on is drawn, with a header that says so.

use hyper::StatusCode;
use serde_json::json;

use crate::support::{MODEL, World, checkpoint, desired, is_ready};

async fn world(words: Option<&str>) -> World {
    let world = World::start(&["--fake-step-ms=1"]).await;
    let folder = world.folder.path().join("worded");
    if let Some(words) = words {
        std::fs::create_dir_all(folder.join("tokenizer")).unwrap();
        std::fs::write(folder.join("tokenizer/known_words.json"), words).unwrap();
    }
    let model = desired(MODEL, checkpoint(&folder, "any"));
    assert_eq!(world.operator.hold(1, vec![model]).await.status, StatusCode::OK);
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    world
}

#[tokio::test]
async fn unknown_words_are_named_in_a_header_and_the_picture_is_drawn() {
    let world = world(Some(r#"["pizza", "red"]"#)).await;
    for (prompt, start) in [
        ("a zebra, 猫", r#"the model knows none of the words "zebra", "\u{732b}"; it was trained on 2 words"#),
        ("a red zebra", r#"the model does not know: "zebra"; "#),
    ] {
        let answer = world.gateway.generate(json!({"prompt": prompt})).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("x-easel-warning").starts_with(start), "{}", answer.header("x-easel-warning"));
    }
    let known = world.gateway.generate(json!({"prompt": "the red pizza"})).await;
    assert_eq!((known.status, known.headers.contains_key("x-easel-warning")), (StatusCode::OK, false));
}

#[tokio::test]
async fn a_model_that_does_not_say_what_it_knows_warns_of_nothing() {
    let world = world(None).await;
    let answer = world.gateway.generate(json!({"prompt": "zebra"})).await;
    assert_eq!((answer.status, answer.headers.contains_key("x-easel-warning")), (StatusCode::OK, false));
}
