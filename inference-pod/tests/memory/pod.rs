//! A pod that edits pictures, and what it allocates to answer one request. The client is in the same process, so what it
//! does with the answer is counted too.

use axum::body::Body;
use easel_api::images::EDITS_PATH;
use hyper::{Request, StatusCode};

use crate::counting::{Turn, peak};
use crate::support::{MODEL, World, checkpoint, desired, is_ready};

const MIB: usize = 1 << 20;

/// With one model that takes pictures of any size that there is.
pub(crate) async fn world() -> World {
    let world = World::start(&["--fake-step-ms=1"]).await;
    let folder = world.folder.path().join("edits");
    let model = desired(MODEL, checkpoint(&folder, "StableDiffusionInstructPix2PixPipeline"));
    assert_eq!(world.operator.hold(1, vec![model]).await.status, StatusCode::OK);
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    world
}

/// A form with these parts beside a prompt and the model's name. A part is its head, without the empty line, and its content.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Request<Body> {
    let text =
        |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let mut body = format!("{}{}", text("prompt", "a cat"), text("model", MODEL)).into_bytes();
    for (head, content) in parts {
        body.extend_from_slice(format!("--b\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    edit("multipart/form-data; boundary=b", body)
}

pub(crate) fn edit(kind: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(EDITS_PATH).header("content-type", kind).body(body.into()).unwrap()
}

/// Asserts that the pod refuses this with these words, and takes no more than so many MiB.
pub(crate) async fn assert_refused(turn: &Turn, world: &World, request: Request<Body>, says: &str, mib: usize) {
    let (answer, peak) = peak(turn, world.gateway.send(request)).await;
    let message = answer.body["error"]["message"].as_str().unwrap_or_default();
    println!("{}: {:.1} MiB: {message:.100}", answer.status, peak as f64 / MIB as f64);
    assert!(answer.status.is_client_error() && message.contains(says), "{} {message}", answer.status);
    assert!(peak <= mib * MIB, "{says}: {peak} bytes");
}

/// Asserts that the pod draws, and takes no more than so many MiB.
pub(crate) async fn assert_drawn(turn: &Turn, world: &World, request: Request<Body>, mib: usize) {
    let (answer, peak) = peak(turn, world.gateway.send(request)).await;
    println!("{}: {:.1} MiB", answer.status, peak as f64 / MIB as f64);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(peak <= mib * MIB, "{peak} bytes");
}
