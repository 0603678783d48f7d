//! What has to leave so that something else fits.
//! Pure: knows sizes and ages; removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// A checkpoint in the cache, whole or half-fetched. The order is the order of leaving: half-fetched first, then what
/// was not used for the longest time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) whole: bool,
    pub(crate) last_use: SystemTime,
    pub(crate) name: String,
    /// Held or being fetched by somebody.
    pub(crate) pinned: bool,
    /// The files, by inode: several checkpoints may share one.
    pub(crate) files: BTreeSet<u64>,
}

/// Which must leave to free `deficit` bytes; `None` when even all together would not do, so that nothing leaves for
/// nothing.
pub(crate) fn victims(owners: &[Owner], sizes: &BTreeMap<u64, u64>, deficit: u64) -> Option<Vec<String>> {
    let mut order: Vec<&Owner> = owners.iter().filter(|owner| !owner.pinned).collect();
    order.sort();
    let mut uses: BTreeMap<u64, usize> = BTreeMap::new();
    for file in owners.iter().flat_map(|owner| &owner.files) {
        *uses.entry(*file).or_default() += 1;
    }
    let (mut freed, mut leaving) = (0, Vec::new());
    for owner in order {
        if freed >= deficit {
            break;
        }
        for file in &owner.files {
            if let Some(count) = uses.get_mut(file) {
                *count -= 1;
                freed += if *count == 0 { sizes.get(file).copied().unwrap_or_default() } else { 0 };
            }
        }
        leaving.push(owner.name.clone());
    }
    (freed >= deficit).then_some(leaving)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn owner(name: &str, age: u64, files: &[u64]) -> Owner {
        let last_use = UNIX_EPOCH + Duration::from_secs(age);
        Owner { whole: true, last_use, name: name.into(), pinned: false, files: files.iter().copied().collect() }
    }

    fn leave(owners: &[Owner], deficit: u64) -> Option<Vec<String>> {
        let sizes = owners.iter().flat_map(|owner| &owner.files).map(|file| (*file, 10)).collect();
        victims(owners, &sizes, deficit)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_longest_unused_leave_first_and_no_more_than_needed() {
        let owners = [owner("new", 30, &[1]), owner("old", 10, &[2]), owner("middle", 20, &[3])];
        assert_eq!(leave(&owners, 0), Some(names(&[])));
        assert_eq!(leave(&owners, 1), Some(names(&["old"])));
        assert_eq!(leave(&owners, 11), Some(names(&["old", "middle"])));
    }

    #[test]
    fn what_is_pinned_stays_and_nothing_leaves_in_vain() {
        let pinned = Owner { pinned: true, ..owner("old", 10, &[1]) };
        let owners = [pinned, owner("new", 30, &[2])];
        assert_eq!(leave(&owners, 10), Some(names(&["new"])));
        assert_eq!(leave(&owners, 11), None);
    }

    #[test]
    fn a_file_that_others_share_frees_nothing_until_the_last_leaves() {
        let owners = [owner("a", 10, &[1, 2]), owner("b", 20, &[1]), owner("c", 30, &[3])];
        assert_eq!(leave(&owners, 10), Some(names(&["a"])));
        assert_eq!(leave(&owners, 20), Some(names(&["a", "b"])));
    }

    #[test]
    fn what_nobody_goes_on_to_fetch_leaves_before_anything_whole() {
        let half = Owner { whole: false, ..owner("half", 99, &[1]) };
        assert_eq!(leave(&[owner("whole", 10, &[2]), half], 5), Some(names(&["half"])));
    }
}
