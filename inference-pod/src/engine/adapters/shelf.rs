//! Which adapters are in memory, within a budget of bytes: what was not worn for the longest time leaves first, and
//! nothing that somebody draws with. Pure: knows numbers; holds no tensor.

use std::collections::BTreeMap;

use crate::scheduler::PipelineId;

/// An adapter is fitted to one loaded checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) pipeline: PipelineId,
    pub(super) digest: String,
}

#[derive(Debug)]
struct Place {
    bytes: u64,
    /// When it was worn last; a count of such times.
    worn: u64,
}

#[derive(Debug)]
pub(super) struct Shelf {
    budget: u64,
    places: BTreeMap<Key, Place>,
    clock: u64,
}

impl Shelf {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, places: BTreeMap::new(), clock: 0 }
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.places.values().map(|place| place.bytes).sum()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.places.keys()
    }

    pub(super) fn holds(&self, pipeline: PipelineId, digest: &str) -> bool {
        self.bytes(pipeline, digest).is_some()
    }

    pub(super) fn bytes(&self, pipeline: PipelineId, digest: &str) -> Option<u64> {
        self.places.get(&Key { pipeline, digest: digest.to_owned() }).map(|place| place.bytes)
    }

    pub(super) fn touch(&mut self, pipeline: PipelineId, digest: &str) {
        self.clock += 1;
        if let Some(place) = self.places.get_mut(&Key { pipeline, digest: digest.to_owned() }) {
            place.worn = self.clock;
        }
    }

    pub(super) fn insert(&mut self, key: Key, bytes: u64) {
        self.clock += 1;
        self.places.insert(key, Place { bytes, worn: self.clock });
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.places.remove(key);
    }

    /// What must leave for so many bytes; `None` when those that stay leave too little.
    pub(super) fn room_for(&self, bytes: u64, stays: impl Fn(&Key) -> bool) -> Option<Vec<Key>> {
        let mut free = self.budget.saturating_sub(self.used_bytes());
        let mut idle: Vec<_> = self.places.iter().filter(|(key, _)| !stays(key)).collect();
        idle.sort_by_key(|(_, place)| place.worn);
        let mut leaving = Vec::new();
        let mut idle = idle.into_iter();
        while free < bytes {
            let (key, place) = idle.next()?;
            free += place.bytes;
            leaving.push(key.clone());
        }
        Some(leaving)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIPELINE: PipelineId = PipelineId(1);

    fn key(digest: &str) -> Key {
        Key { pipeline: PIPELINE, digest: digest.into() }
    }

    fn shelf(budget: u64, adapters: &[(&str, u64)]) -> Shelf {
        let mut shelf = Shelf::new(budget);
        for (digest, bytes) in adapters {
            shelf.insert(key(digest), *bytes);
        }
        shelf
    }

    #[test]
    fn what_was_not_worn_for_the_longest_time_leaves_first_and_no_more_than_needed() {
        let mut shelf = shelf(10, &[("a", 4), ("b", 4), ("c", 2)]);
        shelf.touch(PIPELINE, "a");
        assert_eq!(shelf.room_for(3, |_| false), Some(vec![key("b")]));
        assert_eq!(shelf.room_for(5, |_| false), Some(vec![key("b"), key("c")]));
        assert_eq!(shelf.room_for(3, |key| key.digest == "b"), Some(vec![key("c"), key("a")]));
        assert_eq!(shelf.room_for(11, |_| false), None);
    }

    #[test]
    fn what_is_in_use_stays_whatever_is_asked() {
        let shelf = shelf(10, &[("a", 4), ("b", 4)]);
        assert_eq!(shelf.room_for(2, |_| true), Some(Vec::new()), "there is room beside them");
        assert_eq!(shelf.room_for(3, |_| true), None);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded_and_what_stays_is_never_taken(
            budget in 1u64..100, asked in prop::collection::vec((0usize..8, 1u64..60, any::<u8>()), 1..60)
        ) {
            let mut shelf = Shelf::new(budget);
            for (number, bytes, in_use) in asked {
                let new = key(&number.to_string());
                let stays = |key: &Key| in_use & (1 << key.digest.parse::<u8>().unwrap()) != 0;
                shelf.touch(PIPELINE, &new.digest);
                if shelf.holds(PIPELINE, &new.digest) {
                    continue;
                }
                if let Some(leaving) = shelf.room_for(bytes, stays) {
                    prop_assert!(!leaving.iter().any(stays));
                    for key in &leaving {
                        shelf.remove(key);
                    }
                    shelf.insert(new, bytes);
                }
                prop_assert!(shelf.used_bytes() <= budget);
            }
        }
    }
}
