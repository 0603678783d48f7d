//! Pictures that shall be changed: sent as a form or as JSON, held for another pod, bounded.

use easel_api::images::Task;
use reqwest::header;
use serde_json::json;

use crate::fake_pod::Act;
use crate::stage::{Stage, error_of, soon};

const PATH: &str = "/v1/images/edits";
const VARIATIONS: &str = "/v1/images/variations";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n what a pod would decode";

type Part<'a> = (&'a str, &'a [u8]);

fn form(fields: &[Part]) -> Vec<u8> {
    let part = |(name, content): &Part| {
        let file = if name.starts_with("image") { "; filename=\"a.png\"" } else { "" };
        let head = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    let mut body: Vec<u8> = fields.iter().flat_map(part).collect();
    body.extend_from_slice(b"--b--\r\n");
    body
}

fn send(stage: &Stage, body: Vec<u8>) -> reqwest::RequestBuilder {
    stage.post(PATH).header(header::CONTENT_TYPE, "multipart/form-data; boundary=b").body(body)
}

fn data_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[tokio::test]
async fn a_form_and_json_come_to_the_pod_as_one_and_the_same() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let sent = form(&[
        ("image", PNG),
        ("prompt", b"make it dark skin"),
        ("model", b"tiny"),
        ("seed", b"7"),
        ("image_guidance_scale", b"1.25"),
        ("user", b"u-1"),
    ]);
    let response = send(&stage, sent).send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    assert_eq!(response.headers()["x-easel-model"], "demo/tiny");
    assert_eq!(response.headers()["x-easel-revision"], "sha256:beef");
    let json = json!({"images": [{"image_url": data_url(PNG)}], "prompt": "make it dark skin", "model": "demo/tiny",
        "seed": 7, "image_guidance_scale": 1.25});
    assert_eq!(stage.post(PATH).json(&json).send().await.unwrap().status(), 200);
    let calls = pod.calls();
    assert_eq!((calls[0].path.as_str(), calls[1].path.as_str()), (PATH, PATH));
    assert_eq!(calls[0].body, calls[1].body);
    assert_eq!(calls[0].body, json);
}

#[tokio::test]
async fn a_mask_comes_to_the_pod_with_the_picture() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let mask = [PNG, b" of a mask"].concat();
    let sent = form(&[("image", PNG), ("mask", &mask), ("prompt", b"a hat"), ("seed", b"7"), ("strength", b"0.9")]);
    assert_eq!(send(&stage, sent).send().await.unwrap().status(), 200);
    let expected = json!({"images": [{"image_url": data_url(PNG)}], "mask": {"image_url": data_url(&mask)},
        "prompt": "a hat", "model": "demo/tiny", "seed": 7, "strength": 0.9});
    assert_eq!(pod.calls()[0].body, expected);
}

#[tokio::test]
async fn a_variation_comes_to_the_pod_with_all_that_it_decides() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let square = [&PNG[..8], &[0, 0, 0, 13], b"IHDR", &64_u32.to_be_bytes(), &64_u32.to_be_bytes()].concat();
    let ask = |body: Vec<u8>| {
        stage.post(VARIATIONS).header(header::CONTENT_TYPE, "multipart/form-data; boundary=b").body(body)
    };
    let sent = form(&[("image", &square), ("model", b"tiny"), ("n", b"2"), ("user", b"u-1")]);
    assert_eq!(ask(sent).send().await.unwrap().status(), 200);
    let call = pod.calls()[0].clone();
    let expected = json!({"images": [{"image_url": data_url(&square)}], "prompt": "", "model": "demo/tiny", "n": 2,
        "seed": call.body["seed"], "strength": 0.6, "guidance_scale": 1.0});
    assert_eq!((call.path.as_str(), &call.body), (VARIATIONS, &expected));
    let (status, error) = error_of(ask(form(&[("image", PNG)])).send().await.unwrap()).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("image")));
    assert_eq!(pod.calls().len(), 1);
}

#[tokio::test]
async fn what_a_checkpoint_can_not_do_is_refused_before_a_pod_is_asked() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let set = |tasks: &[Task]| {
        stage.edit(|table| table.models.values_mut().for_each(|model| model.tasks = tasks.to_vec()));
    };
    let (masked, instructed): ([Part; 3], [Part; 3]) = (
        [("image", PNG), ("mask", PNG), ("prompt", b"a")],
        [("image", PNG), ("image_guidance_scale", b"2"), ("prompt", b"a")],
    );
    for (tasks, fields, param) in [
        (&[Task::Instruct][..], &masked[..], "mask"),
        (&[Task::Generate, Task::ImageToImage, Task::Inpaint], &instructed, "image_guidance_scale"),
        (&[Task::Inpaint], &[("image", PNG), ("prompt", b"a")], "image"),
        (&[Task::Generate, Task::ImageToImage], &[("image", PNG), ("prompt", b"a"), ("strength", b"0.1")], "strength"),
    ] {
        set(tasks);
        let (status, error) = error_of(send(&stage, form(fields)).send().await.unwrap()).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{error}");
    }
    set(&[Task::Instruct]);
    let drawn = stage.post("/v1/images/generations").json(&json!({"prompt": "a"})).send().await.unwrap();
    let (status, error) = error_of(drawn).await;
    assert!(status == 400 && error["message"].as_str().unwrap().contains("/v1/images/edits"), "{error}");
    assert!(pod.calls().is_empty());
    assert_eq!(send(&stage, form(&[("image", PNG), ("prompt", b"a")])).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_prediction_counts_the_steps_that_a_strength_leaves() {
    let stage = Stage::new(&[]).await;
    let _pod = stage.add_pod("a", []).await;
    stage.edit(|table| {
        table.models.values_mut().for_each(|model| model.tasks = vec![Task::Generate, Task::ImageToImage]);
    });
    // Ten milliseconds a step.
    for (steps, strength, predicted) in [("8", Some("0.5"), "40"), ("8", Some("1"), "80"), ("5", None, "40")] {
        let mut fields: Vec<Part> = vec![("image", PNG), ("prompt", b"a"), ("steps", steps.as_bytes())];
        fields.extend(strength.map(|strength| ("strength", strength.as_bytes())));
        let response = send(&stage, form(&fields)).send().await.unwrap();
        assert_eq!(response.headers()["x-easel-predicted-ms"], predicted, "{steps} × {strength:?}");
    }
}

#[tokio::test]
async fn an_edit_whose_pod_dies_is_drawn_by_the_next_with_the_same_picture_and_seed() {
    let stage = Stage::new(&[]).await;
    let dying = stage.add_pod("a", [Act::Die]).await;
    let picture = [PNG, &vec![7; 5 << 20]].concat();
    let body = form(&[("image", &picture), ("prompt", b"as a woman")]);
    let asked = tokio::spawn(send(&stage, body).send());
    let first = dying.called(1).await;
    stage.remove("a");
    let next = stage.add_pod("b", []).await;
    let response = soon(asked).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-easel-attempts"], "2");
    assert!(first[0].body["seed"].is_u64());
    assert!(first[0].body == next.calls()[0].body, "the second pod was asked something else");
    assert_eq!(next.calls()[0].body["images"][0]["image_url"].as_str().unwrap(), data_url(&picture));
}

#[tokio::test]
async fn bad_edits_are_refused_with_the_fields_name_and_no_pod_is_asked() {
    let stage = Stage::new(&[]).await;
    let pod = stage.add_pod("a", []).await;
    let table: [(&[Part], u16, &str, &str); 10] = [
        (&[("prompt", b"a")], 400, "image", "missing_image"),
        (&[("image", b"GIF89a"), ("prompt", b"a")], 400, "image", "invalid_image"),
        (&[("image", PNG), ("image", PNG), ("prompt", b"a")], 400, "image", "invalid_value"),
        (&[("image", PNG), ("mask", b"\xff\xd8\xff a JPEG"), ("prompt", b"a")], 400, "mask", "invalid_image"),
        (&[("image", PNG), ("strength", b"1.5"), ("prompt", b"a")], 400, "strength", "invalid_type"),
        (&[("image", PNG), ("prompt", b"a"), ("n", b"two")], 400, "n", "invalid_type"),
        (&[("image", PNG), ("prompt", b"a"), ("size", b"63x64")], 400, "size", "invalid_value"),
        (&[("image", PNG), ("prompt", b"a"), ("steps", b"9")], 400, "steps", "invalid_value"),
        (&[("image", PNG), ("prompt", b"a"), ("colour", b"red")], 400, "colour", "unknown_parameter"),
        (&[("image", PNG), ("prompt", b"a"), ("model", b"sdxl")], 404, "model", "model_not_found"),
    ];
    for (fields, status, param, code) in table {
        let (found, error) = error_of(send(&stage, form(fields)).send().await.unwrap()).await;
        let found = (found, error["param"].as_str(), error["code"].as_str());
        assert_eq!(found, (status, Some(param), Some(code)), "{error}");
    }
    let address = json!({"prompt": "a", "images": [{"image_url": "https://example.com/cat.png"}]});
    let (status, error) = error_of(stage.post(PATH).json(&address).send().await.unwrap()).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("images[0].image_url")));
    assert!(error["message"].as_str().unwrap().contains("no address is fetched"), "{error}");
    assert!(pod.calls().is_empty());
}

#[tokio::test]
async fn a_body_of_more_than_8_mebibytes_or_of_another_type_is_refused() {
    let stage = Stage::new(&[]).await;
    let large = form(&[("image", &[PNG, &vec![7; 8 << 20]].concat()), ("prompt", b"a")]);
    let (status, error) = error_of(soon(send(&stage, large).send()).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (413, Some("body_too_large")));
    for kind in ["text/plain", "image/png", ""] {
        let request = stage.post(PATH).header(header::CONTENT_TYPE, kind).body(PNG);
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!(status, 415, "{kind}");
        assert!(error["message"].as_str().unwrap().contains("multipart/form-data or application/json"), "{error}");
    }
}

#[tokio::test]
async fn edits_beyond_the_memory_for_them_are_not_read_until_there_is_room() {
    // 64 MiB: two pictures of 7 MiB are read (4 copies each), and kept as 10 MiB of JSON each.
    let stage = Stage::new(&["--edit-memory-mib", "64"]).await;
    let picture = [PNG, &vec![7; 7 << 20]].concat();
    let ask = |prompt: &str| {
        let body = form(&[("image", &picture), ("prompt", prompt.as_bytes())]);
        tokio::spawn(send(&stage, body).send())
    };
    let asked: Vec<_> = (0..7).map(|n| ask(&format!("edit {n}"))).collect();
    // No pod yet: 10 MiB stay for each that waits, and another needs 28 to be read.
    let waiting = stage.until("easel_gateway_waiting", |waiting| {
        assert!(waiting <= 5, "{waiting} pictures are in memory");
        waiting >= 4
    });
    let waiting = waiting.await;
    let pod = stage.add_pod("a", []).await;
    for asked in asked {
        assert_eq!(soon(asked).await.unwrap().unwrap().status(), 200, "{waiting} waited");
    }
    assert_eq!(pod.calls().len(), 7);
}
