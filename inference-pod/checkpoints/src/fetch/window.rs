//! Which ranges of one file to ask for, and in what order its bytes are handed on.
//! Pure: knows offsets and bytes; does not know stores, files or time.
//!
//! Ranges are asked for in order and may arrive in any; what is early is held until its turn, so that bytes are hashed
//! and written once, in order, and what is on disk is always a whole prefix of the file.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

#[derive(Debug)]
pub(crate) struct Window {
    size: u64,
    range_bytes: u64,
    /// Where the next range to ask for begins.
    next_open: u64,
    /// Where the next byte to hand on is.
    next_take: u64,
    /// Ends of ranges that were asked for and are not handed on yet.
    open: VecDeque<u64>,
    /// Arrived, by offset.
    held: BTreeMap<u64, Bytes>,
}

impl Window {
    /// Of a file of `size` bytes of which `done` are there.
    pub(crate) fn new(done: u64, size: u64, range_bytes: u64) -> Self {
        let (open, held) = (VecDeque::new(), BTreeMap::new());
        Self { size, range_bytes, next_open: done, next_take: done, open, held }
    }

    /// The next range to ask for, if there is one. Whoever asks bounds how many are open, and so what is held.
    pub(crate) fn open(&mut self) -> Option<Range<u64>> {
        if self.next_open >= self.size {
            return None;
        }
        let range = self.next_open..self.size.min(self.next_open + self.range_bytes);
        self.next_open = range.end;
        self.open.push_back(range.end);
        Some(range)
    }

    /// The server sends whole files only: the last range that was opened goes on to the end.
    pub(crate) fn widen(&mut self) -> u64 {
        if let Some(end) = self.open.back_mut() {
            *end = self.size;
            self.next_open = self.size;
        }
        self.size
    }

    pub(crate) fn arrived(&mut self, offset: u64, bytes: Bytes) {
        debug_assert!(offset >= self.next_take);
        if !bytes.is_empty() {
            self.held.insert(offset, bytes);
        }
    }

    /// What comes next, if it has arrived.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let bytes = self.held.remove(&self.next_take)?;
        self.next_take += bytes.len() as u64;
        Some(bytes)
    }

    /// How many ranges have been handed on wholly since this was last asked.
    pub(crate) fn closed(&mut self) -> usize {
        let before = self.open.len();
        while self.open.front().is_some_and(|end| *end <= self.next_take) {
            self.open.pop_front();
        }
        before - self.open.len()
    }

    pub(crate) fn opened(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next_take >= self.size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    proptest! {
        /// Chunks of any size, of any of the open ranges, in any order.
        #[test]
        fn any_order_of_arrival_gives_the_same_bytes_within_the_bound(
            size in 0_u64..5000,
            done in 0_u64..5000,
            range_bytes in 1_u64..700,
            most in 1_usize..6,
            choices in prop::collection::vec((any::<u16>(), 1_u64..300), 0..4000),
        ) {
            let done = done.min(size);
            let file: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let mut window = Window::new(done, size, range_bytes);
            let mut running: Vec<Range<u64>> = Vec::new();
            let mut hash = Sha256::new_with_prefix(&file[..done as usize]);
            let mut choices = choices.into_iter().chain(std::iter::repeat((7, 100)));
            while !window.is_done() {
                while window.opened() < most && let Some(range) = window.open() {
                    running.push(range);
                }
                let (which, length) = choices.next().unwrap();
                let which = usize::from(which) % running.len();
                let range = &mut running[which];
                let end = range.end.min(range.start + length);
                window.arrived(range.start, Bytes::copy_from_slice(&file[range.start as usize..end as usize]));
                range.start = end;
                running.retain(|range| !range.is_empty());
                let held: u64 = window.held.values().map(|bytes| bytes.len() as u64).sum();
                prop_assert!(held <= most as u64 * range_bytes);
                while let Some(bytes) = window.take() {
                    hash.update(&bytes);
                }
                window.closed();
            }
            prop_assert_eq!(hash.finalize(), Sha256::digest(&file));
            prop_assert!(window.open().is_none() && window.held.is_empty());
        }

        #[test]
        fn ranges_cover_what_is_missing_once_and_in_order(
            size in 0_u64..100_000, done in 0_u64..100_000, range_bytes in 1_u64..9000
        ) {
            let done = done.min(size);
            let mut window = Window::new(done, size, range_bytes);
            let mut at = done;
            while let Some(range) = window.open() {
                prop_assert_eq!(range.start, at);
                prop_assert!(!range.is_empty() && range.end - range.start <= range_bytes);
                at = range.end;
            }
            prop_assert_eq!(at, size);
        }
    }

    #[test]
    fn a_server_that_sends_whole_files_is_asked_once() {
        let mut window = Window::new(10, 100, 20);
        assert_eq!(window.open(), Some(10..30));
        assert_eq!(window.widen(), 100);
        assert_eq!(window.open(), None);
        window.arrived(10, Bytes::from(vec![0; 90]));
        assert_eq!(window.take().unwrap().len(), 90);
        assert!(window.is_done() && window.closed() == 1);
    }
}
