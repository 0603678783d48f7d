//! The newest snapshots of the pictures of one request, from which another pod goes on when this one is gone.
//! Owns their bound on memory; does not know what is in them, nor how they come and go.

use std::collections::BTreeMap;

use easel_api::frames::Snapshot;
use tokio::sync::OwnedSemaphorePermit;

use crate::gateway::metrics::GatewayMetrics;
use crate::gateway::proxy::Memory;

#[derive(Debug)]
pub(super) struct Snapshots {
    memory: Memory,
    metrics: GatewayMetrics,
    /// Of this request.
    pictures: u32,
    held: BTreeMap<u32, Held>,
}

#[derive(Debug)]
struct Held {
    snapshot: Snapshot,
    _room: OwnedSemaphorePermit,
}

impl Snapshots {
    /// For a request of so many pictures.
    pub(super) fn new(memory: Memory, metrics: GatewayMetrics, pictures: u32) -> Self {
        Self { memory, metrics, pictures, held: BTreeMap::new() }
    }

    /// For a snapshot that is coming. `None`: it has to be let go by.
    pub(super) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let room = self.memory.try_take(bytes as u64);
        if room.is_none() {
            self.metrics.snapshots_dropped.inc();
        }
        room
    }

    /// In place of an older one of the same picture. False when the request has no such picture.
    pub(super) fn keep(&mut self, snapshot: Snapshot, room: OwnedSemaphorePermit) -> bool {
        if snapshot.picture >= self.pictures {
            return false;
        }
        self.metrics.snapshots.inc();
        self.held.insert(snapshot.picture, Held { snapshot, _room: room });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// In the order of pictures; they share their bytes with what is held.
    pub(super) fn all(&self) -> Vec<Snapshot> {
        self.held.values().map(|held| held.snapshot.clone()).collect()
    }

    /// The pictures are drawn from the beginning again.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 300 << 10;

    fn snapshot(picture: u32, content: u8) -> Snapshot {
        Snapshot { picture, bytes: vec![content; BYTES].into() }
    }

    fn keep(snapshots: &mut Snapshots, snapshot: Snapshot) -> bool {
        let room = snapshots.room(snapshot.bytes.len());
        room.is_some_and(|room| snapshots.keep(snapshot, room))
    }

    /// Room for three.
    fn snapshots(pictures: u32) -> Snapshots {
        Snapshots::new(Memory::new(1), GatewayMetrics::default(), pictures)
    }

    #[test]
    fn a_newer_snapshot_takes_the_place_and_the_memory_of_an_older_one() {
        let mut snapshots = snapshots(1);
        for content in 0..20 {
            assert!(keep(&mut snapshots, snapshot(0, content)));
        }
        assert_eq!(snapshots.all(), [snapshot(0, 19)]);
    }

    #[test]
    fn without_room_a_snapshot_is_dropped_and_counted_and_the_older_ones_stay() {
        let mut snapshots = snapshots(4);
        let kept = (0..4).map(|picture| keep(&mut snapshots, snapshot(picture, 1))).collect::<Vec<_>>();
        assert_eq!(kept, [true, true, true, false]);
        assert!(!keep(&mut snapshots, snapshot(0, 2)), "it needs room beside the one that it replaces");
        assert_eq!(snapshots.metrics.snapshots_dropped.get(), 2);
        assert_eq!(snapshots.all(), [snapshot(0, 1), snapshot(1, 1), snapshot(2, 1)]);
        snapshots.forget();
        assert!(snapshots.is_empty() && keep(&mut snapshots, snapshot(3, 1)), "what is forgotten takes no room");
    }

    #[test]
    fn a_request_has_no_snapshots_of_pictures_that_it_has_not() {
        let mut snapshots = snapshots(1);
        assert!(!keep(&mut snapshots, snapshot(1, 0)));
        assert!(snapshots.is_empty());
    }
}
