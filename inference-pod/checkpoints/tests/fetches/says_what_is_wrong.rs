//! Whatever goes wrong has its reason, nothing of it is served, and it works when the cause has gone.

use std::sync::Arc;

use easel_api::engine::{Checkpoint, RefusalReason, Source};
use easel_checkpoints::Progress;
use easel_checkpoints::digest::Digest;

use crate::server::Faults;
use crate::world::{WEIGHTS, World, assert_holds, fetch, files, refusal, registry_access};

fn weights_digest() -> String {
    Digest::of(&files(0)[1].1).to_string()
}

#[tokio::test]
async fn statuses_and_silence_have_their_reasons_and_pass() {
    for (faults, reason) in [
        (Faults { status: Some(401), ..Faults::default() }, RefusalReason::Unauthorized),
        (Faults { status: Some(403), ..Faults::default() }, RefusalReason::Unauthorized),
        (Faults { status: Some(404), ..Faults::default() }, RefusalReason::NotFound),
        (Faults { status: Some(503), ..Faults::default() }, RefusalReason::Unreachable),
        (Faults { breaks: (500, u32::MAX), ..Faults::default() }, RefusalReason::Unreachable),
        (Faults { stalls_after: Some(0), ..Faults::default() }, RefusalReason::Unreachable),
    ] {
        for s3 in [false, true] {
            let world = World::new().await;
            let checkpoint = if s3 { world.upload(&files(0)) } else { world.push(&files(0)) };
            world.server.set(faults.clone());
            let fetcher = world.fetcher();
            assert_eq!(refusal(&fetcher, &checkpoint).await, reason, "{faults:?}, s3: {s3}");
            world.server.set(Faults::default());
            assert_holds(&fetch(&fetcher, &checkpoint).await.unwrap().folder, &files(0));
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_unreachable() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    let source = Source::Oci { registry: "127.0.0.1:1".into(), repository: "model".into(), plain_http: true };
    assert_eq!(refusal(&world.fetcher(), &Checkpoint { source, ..checkpoint }).await, RefusalReason::Unreachable);
}

#[tokio::test]
async fn a_wrong_credential_is_unauthorized_and_is_not_told() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.set(Faults { password: Some("right".into()), ..Faults::default() });
    let progress = Arc::new(Progress::default());
    let refused = world.fetcher().fetch(&checkpoint, Some(&registry_access("hunter2")), &progress).await.unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Unauthorized);
    assert!(refused.message.contains("secretRef") && !refused.message.contains("hunter2"), "{}", refused.message);
    assert_eq!(refusal(&world.fetcher(), &checkpoint).await, RefusalReason::Unauthorized, "nor without one");
}

#[tokio::test]
async fn a_truncated_layer_and_a_flipped_bit_are_told_apart() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.change(&weights_digest(), |bytes| bytes.truncate(100_000));
    let fetcher = world.fetcher();
    assert_eq!(refusal(&fetcher, &checkpoint).await, RefusalReason::Truncated);
    world.server.change(&weights_digest(), |bytes| {
        *bytes = files(0)[1].1.clone();
        bytes[110_000] ^= 1;
    });
    assert_eq!(refusal(&fetcher, &checkpoint).await, RefusalReason::DigestMismatch);
    world.push(&files(0));
    assert_holds(&fetch(&fetcher, &checkpoint).await.unwrap().folder, &files(0));
}

#[tokio::test]
async fn objects_that_are_not_those_of_the_digest_are_a_mismatch() {
    let world = World::new().await;
    let checkpoint = world.upload(&files(0));
    world.server.change(&format!("models/x/{WEIGHTS}"), |bytes| bytes[7] ^= 1);
    let fetcher = world.fetcher();
    assert_eq!(refusal(&fetcher, &checkpoint).await, RefusalReason::DigestMismatch);
    world.upload(&files(0));
    assert_holds(&fetch(&fetcher, &checkpoint).await.unwrap().folder, &files(0));
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let world = World::new().await;
    let (checkpoint, other) = (world.push(&files(0)), world.push(&files(1)));
    let unknown = Checkpoint { digest: Digest::of(b"x").to_string(), ..checkpoint.clone() };
    assert_eq!(refusal(&world.fetcher(), &unknown).await, RefusalReason::NotFound);
    world.server.put_manifest(&checkpoint.digest, b"{\"schemaVersion\":2}".to_vec());
    assert_eq!(refusal(&world.fetcher(), &checkpoint).await, RefusalReason::DigestMismatch);
    fetch(&world.fetcher(), &other).await.unwrap();
}

#[tokio::test]
async fn a_pickle_or_a_path_that_climbs_is_refused_before_a_byte_is_fetched() {
    for (name, reason) in [
        ("unet/weights.bin", RefusalReason::UnsafeFormat),
        ("run.py", RefusalReason::UnsafeFormat),
        ("../escape.json", RefusalReason::Unsupported),
        ("/etc/cron.json", RefusalReason::Unsupported),
    ] {
        let world = World::new().await;
        let mut files = files(0);
        files.push((name.into(), b"x".to_vec()));
        let checkpoint = world.push(&files);
        assert_eq!(refusal(&world.fetcher(), &checkpoint).await, reason, "{name}");
        assert_eq!(world.server.sent(), 0, "{name}");
    }
}

#[tokio::test]
async fn an_artifact_that_is_no_checkpoint_is_unsupported() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0)[1..]);
    assert_eq!(refusal(&world.fetcher(), &checkpoint).await, RefusalReason::Unsupported);
}
