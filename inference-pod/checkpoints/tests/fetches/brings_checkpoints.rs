//! The bytes that were pushed are those that arrive, however the server gives them.

use std::sync::Arc;
use std::time::Duration;

use easel_checkpoints::{Progress, Stage};

use crate::server::Faults;
use crate::world::{WEIGHT_BYTES, World, assert_holds, fetch, files, registry_access};

#[tokio::test]
async fn an_artifact_arrives_in_ranges_and_is_proved() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
    assert_holds(&held.folder, &files(0));
    assert_eq!(held.verified.weight_bytes, WEIGHT_BYTES as u64 + 20_000);
    assert!(!held.receipt.hit);
    assert!(world.server.asked().len() > 13, "not in ranges: {:?}", world.server.asked());
    assert_eq!(world.server.sent(), held.verified.total_bytes, "nothing comes twice");
}

#[tokio::test]
async fn the_objects_under_a_prefix_arrive_in_ranges_and_are_proved() {
    let world = World::new().await;
    let checkpoint = world.upload(&files(0));
    world.server.put("models/x-other/a.json", b"{}".to_vec());
    let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
    assert_holds(&held.folder, &files(0));
    assert_eq!(world.server.sent(), held.verified.total_bytes);
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_once_for_each_file() {
    for s3 in [false, true] {
        let world = World::new().await;
        let checkpoint = if s3 { world.upload(&files(0)) } else { world.push(&files(0)) };
        world.server.set(Faults { no_ranges: true, ..Faults::default() });
        let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
        assert_holds(&held.folder, &files(0));
    }
}

#[tokio::test]
async fn what_breaks_off_goes_on_where_it_broke() {
    for s3 in [false, true] {
        let world = World::new().await;
        let checkpoint = if s3 { world.upload(&files(0)) } else { world.push(&files(0)) };
        world.server.set(Faults { breaks: (3000, 5), ..Faults::default() });
        let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
        assert_holds(&held.folder, &files(0));
        // Up to four pieces before each break are counted, and may not have left.
        assert!(world.server.sent() <= held.verified.total_bytes + 5 * 4000);
    }
}

#[tokio::test]
async fn a_fetch_that_was_stopped_goes_on_with_what_is_there() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.set(Faults { slow: Some(Duration::from_millis(2)), ..Faults::default() });
    let (fetcher, progress) = (world.fetcher(), Arc::new(Progress::default()));
    {
        let mut running = Box::pin(fetcher.fetch(&checkpoint, None, &progress));
        let half = async {
            while !matches!(progress.stage(), Stage::Fetching { done_bytes, .. } if done_bytes > 70_000) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = &mut running => panic!("too fast to be stopped"),
            () = half => {}
        }
    }
    world.server.set(Faults::default());
    let before = world.server.sent();
    let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
    assert_holds(&held.folder, &files(0));
    assert!(world.server.sent() - before < held.verified.total_bytes - 50_000, "it began anew");
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_one_for_the_credential() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.set(Faults { password: Some("p".into()), ..Faults::default() });
    let progress = Arc::new(Progress::default());
    let held = world.fetcher().fetch(&checkpoint, Some(&registry_access("p")), &progress).await.unwrap();
    assert_holds(&held.folder, &files(0));
}
