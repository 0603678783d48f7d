//! What is in the cache is not fetched again, is proved at every load, and leaves when room is needed.

use std::sync::Arc;
use std::time::Duration;

use easel_api::engine::RefusalReason;
use easel_checkpoints::{Cache, Progress, Stage};

use crate::server::Faults;
use crate::world::{WEIGHTS, World, assert_holds, fetch, files, refusal};

/// Of one checkpoint of `files`.
const BYTES: u64 = 123_456 + 20_000 + 2;

#[tokio::test]
async fn what_was_fetched_once_is_there_when_the_store_is_not() {
    let world = World::new().await;
    let (artifact, objects) = (world.push(&files(0)), world.upload(&files(0)));
    for checkpoint in [&artifact, &objects] {
        fetch(&world.fetcher(), checkpoint).await.unwrap();
    }
    world.server.remove_all();
    for checkpoint in [&artifact, &objects] {
        let held = fetch(&world.fetcher(), checkpoint).await.unwrap();
        assert!(held.receipt.hit);
        assert_holds(&held.folder, &files(0));
    }
}

#[tokio::test]
async fn two_pods_that_want_the_same_fetch_it_once() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.set(Faults { slow: Some(Duration::from_millis(1)), ..Faults::default() });
    let (a, b) = (world.fetcher(), world.fetcher());
    let (a, b) = tokio::join!(fetch(&a, &checkpoint), fetch(&b, &checkpoint));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(world.server.sent(), BYTES);
    assert!(a.receipt.hit != b.receipt.hit);
    assert_eq!(a.folder, b.folder);
}

#[tokio::test]
async fn whoever_waits_takes_over_when_the_first_dies() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    world.server.set(Faults { stalls_after: Some(4000), ..Faults::default() });
    let (first, second) = (world.fetcher(), world.fetcher());
    let dying = {
        let checkpoint = checkpoint.clone();
        tokio::spawn(async move { fetch(&first, &checkpoint).await.map(|_| ()) })
    };
    while world.server.sent() < 4000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let progress = Arc::new(Progress::default());
    let waiting = tokio::spawn({
        let progress = progress.clone();
        async move { second.fetch(&checkpoint, None, &progress).await }
    });
    // It knows what there is to fetch, and the first holds it.
    while !matches!(progress.stage(), Stage::Fetching { .. }) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.server.set(Faults::default());
    dying.abort();
    assert_holds(&waiting.await.unwrap().unwrap().folder, &files(0));
}

#[tokio::test]
async fn a_flipped_bit_on_disk_is_fetched_again_and_not_served() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    let folder = fetch(&world.fetcher(), &checkpoint).await.unwrap().folder.clone();
    let mut bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
    bytes[99] ^= 1;
    std::fs::write(folder.join(WEIGHTS), bytes).unwrap();
    let held = fetch(&world.fetcher(), &checkpoint).await.unwrap();
    assert!(!held.receipt.hit);
    assert_holds(&held.folder, &files(0));
}

#[tokio::test]
async fn what_is_found_is_hashed_by_whoever_reads_it_and_leaves_when_it_is_spoilt() {
    let world = World::new().await;
    let (checkpoint, fetcher) = (world.push(&files(0)), world.fetcher());
    let progress = Arc::new(Progress::default());
    let weights = fetch(&fetcher, &checkpoint).await.unwrap().folder.join(WEIGHTS);
    let bytes = std::fs::read(&weights).unwrap();
    let held = fetcher.find(&checkpoint, None, &progress).await.unwrap();
    assert!(held.receipt.hit && progress.stage() == Stage::Asking);
    let found = held.files(Box::new(|_, _| true)).unwrap();
    assert!(!found.are_proved() && found.prove().is_ok());
    let flipped: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 99)).collect();
    std::fs::write(&weights, flipped).unwrap();
    let held = fetcher.find(&checkpoint, None, &progress).await.unwrap();
    held.files(Box::new(|_, _| true)).unwrap().prove().unwrap_err();
    fetcher.discard(&held).unwrap();
    let held = fetcher.find(&checkpoint, None, &progress).await.unwrap();
    assert!(!held.receipt.hit && held.files(Box::new(|_, _| true)).unwrap().are_proved());
    assert_holds(&held.folder, &files(0));
}

#[tokio::test]
async fn a_file_that_is_gone_from_the_cache_is_fetched_again() {
    let world = World::new().await;
    let (checkpoint, fetcher) = (world.push(&files(0)), world.fetcher());
    std::fs::remove_file(fetch(&fetcher, &checkpoint).await.unwrap().folder.join(WEIGHTS)).unwrap();
    let held = fetcher.find(&checkpoint, None, &Arc::default()).await.unwrap();
    assert!(!held.receipt.hit);
    assert_holds(&held.folder, &files(0));
}

#[tokio::test]
async fn files_that_checkpoints_share_are_fetched_and_stored_once() {
    let world = World::new().await;
    fetch(&world.fetcher(), &world.push(&files(0))).await.unwrap();
    let held = fetch(&world.fetcher(), &world.push(&files(1))).await.unwrap();
    assert_holds(&held.folder, &files(1));
    assert_eq!(world.server.sent(), BYTES + 123_456);
    assert_eq!(held.receipt.cache_bytes, BYTES + 123_456);
}

#[tokio::test]
async fn the_longest_unused_leaves_when_room_is_needed_and_what_is_held_stays() {
    let world = World::new().await;
    let budget = 2 * BYTES + 1000;
    let checkpoints = [0, 1, 2, 3].map(|seed| {
        let mut files = files(seed);
        files[3].1 = vec![seed; 20_000];
        world.push(&files)
    });
    let fetcher = world.fetcher_with(Some(budget));
    let held = fetch(&fetcher, &checkpoints[0]).await.unwrap();
    fetch(&fetcher, &checkpoints[1]).await.unwrap();
    let third = fetch(&fetcher, &checkpoints[2]).await.unwrap();
    assert_eq!((third.receipt.evicted, held.folder.exists()), (1, true));
    assert!(third.receipt.cache_bytes <= budget);
    // Both that are there are held now.
    assert_eq!(refusal(&fetcher, &checkpoints[3]).await, RefusalReason::NoSpace);
    drop(held);
    fetch(&fetcher, &checkpoints[3]).await.unwrap();
    assert!(third.folder.exists());
}

#[tokio::test]
async fn a_budget_that_is_too_small_is_told_with_what_is_needed() {
    let world = World::new().await;
    let checkpoint = world.push(&files(0));
    let refused = fetch(&world.fetcher_with(Some(100_000)), &checkpoint).await.unwrap_err();
    assert_eq!(refused.reason, RefusalReason::NoSpace);
    assert!(refused.message.contains(&BYTES.to_string()) && refused.message.contains("spec.cache"), "{refused}");
    fetch(&world.fetcher_with(Some(BYTES)), &checkpoint).await.unwrap();
}

#[tokio::test]
async fn a_cache_that_can_not_be_made_says_so() {
    let world = World::new().await;
    std::fs::write(world.cache(), "a file").unwrap();
    assert_eq!(refusal(&world.fetcher(), &world.push(&files(0))).await, RefusalReason::NoSpace);
    std::fs::remove_file(world.cache()).unwrap();
    fetch(&world.fetcher(), &world.push(&files(0))).await.unwrap();
}

#[tokio::test]
async fn what_nobody_goes_on_to_fetch_is_removed_after_a_day() {
    let world = World::new().await;
    let partial = world.cache().join("partial").join("0".repeat(64));
    std::fs::create_dir_all(&partial).unwrap();
    Cache::open(&world.cache(), None).unwrap();
    assert!(partial.exists());
    let old = std::time::SystemTime::now() - Duration::from_hours(25);
    std::fs::File::open(&partial).unwrap().set_modified(old).unwrap();
    Cache::open(&world.cache(), None).unwrap();
    assert!(!partial.exists());
}
