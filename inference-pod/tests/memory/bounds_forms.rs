//! Bodies that declare more than they have, or that are made of very many small things.

use easel_api::images::MAX_FORWARDED_EDIT_BODY;

use crate::counting::turn;
use crate::pod::{assert_refused, edit, form, world};

const MOST: usize = MAX_FORWARDED_EDIT_BODY as usize - (1 << 10);
const COUNT: &str = "content-disposition: form-data; name=\"n\"";

#[tokio::test]
async fn a_part_that_declares_more_than_it_has_costs_what_it_has() {
    let (turn, world) = (turn().await, world().await);
    let head = "content-disposition: form-data; name=\"image\"; filename=\"p\"\r\ncontent-length: 1152921504606846976";
    assert_refused(&turn, &world, form(&[(head, b"GIF89a")]), "not a PNG, JPEG or WebP", 4).await;
    let endless = b"--b\r\ncontent-disposition: form-data; name=\"image\"; size=1152921504606846976\r\n\r\nGIF89a";
    assert_refused(
        &turn,
        &world,
        edit("multipart/form-data; boundary=b", endless.to_vec()),
        "the form can't be read",
        4,
    )
    .await;
}

#[tokio::test]
async fn very_many_parts_cost_no_more_than_their_bytes() {
    let (turn, world) = (turn().await, world().await);
    let parts = "--b\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n\r\n".repeat(100_000);
    let request = edit("multipart/form-data; boundary=b", parts.into_bytes());
    assert_refused(&turn, &world, request, "form", 32).await;
}

/// Two bytes of JSON can be a value of 32.
#[tokio::test]
async fn very_many_values_are_refused_before_they_are_made() {
    let (turn, world) = (turn().await, world().await);
    let zeros = "0,".repeat(MOST / 2);
    let list = format!("{{\"prompt\":[{zeros}0]}}");
    assert_refused(&turn, &world, edit("application/json", list.into_bytes()), "values", 48).await;
    let list = format!("[{}0]", &zeros[..MOST - (4 << 10)]);
    assert_refused(&turn, &world, form(&[(COUNT, list.as_bytes())]), "n", 64).await;
}
