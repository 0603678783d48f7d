//! Room for a checkpoint that shall be fetched: counts what is there, and makes what is unused leave.
//! Knows the cache's folders; which leave is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::evict::{Owner, victims};
use super::{Cache, Lock, RESERVED, files_of, missing_is_fine, named, reserved};
use crate::digest::Digest;

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    /// By the budget.
    #[error(
        "the checkpoint needs {need_bytes} bytes more and the cache may hold {budget_bytes}, of which {held_bytes} are \
         held by models that serve; give the pool a larger cache (spec.cache) or remove a model"
    )]
    Budget { need_bytes: u64, budget_bytes: u64, held_bytes: u64 },
    #[error(
        "the checkpoint needs {need_bytes} bytes more and the cache's disk has {free_bytes} free, with nothing left \
         that could leave; free some space or give the cache a larger disk"
    )]
    Disk { need_bytes: u64, free_bytes: u64 },
    #[error("the cache can't be written: {0}; check that the pod has a writable volume at --cache-dir")]
    Io(#[from] io::Error),
}

/// What is in the cache now.
struct Survey {
    owners: Vec<Owner>,
    sizes: BTreeMap<u64, u64>,
    /// That other fetches will still write.
    promised_bytes: u64,
    /// Of all that could leave: nobody can take it while we decide.
    locks: BTreeMap<String, (Digest, Vec<Lock>)>,
}

impl Cache {
    /// Books room for the rest of a checkpoint whose fetch lock the caller has. `parts` are file names and sizes;
    /// those that another checkpoint has already are linked, and need none.
    pub(crate) fn reserve(&self, digest: &Digest, parts: &[(Digest, u64)], shared: bool) -> Result<(), NoRoom> {
        let partial = self.partial(digest);
        fs::create_dir_all(&partial)?;
        missing_is_fine(fs::remove_dir_all(partial.join(super::STAGE)))?;
        let _index = self.index()?;
        let mut need_bytes = 0;
        for (name, size) in parts {
            let path = partial.join(name.hex());
            let there = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if there < *size && shared && self.borrow(name, *size, &path)? {
                continue;
            }
            need_bytes += size.saturating_sub(there);
        }
        self.make_room(digest, need_bytes)?;
        let total: u64 = parts.iter().map(|(_, size)| size).sum();
        fs::write(partial.join(RESERVED), total.to_string())?;
        Ok(())
    }

    /// A link to a whole file of another checkpoint. It is hashed with the rest before anything is made of it.
    fn borrow(&self, name: &Digest, size: u64, path: &Path) -> io::Result<bool> {
        let blob = self.blob(name);
        if fs::metadata(&blob).map_or(0, |metadata| metadata.len()) != size || size == 0 {
            return Ok(false);
        }
        missing_is_fine(fs::remove_file(path))?;
        fs::hard_link(blob, path).map(|()| true)
    }

    fn make_room(&self, digest: &Digest, need_bytes: u64) -> Result<(), NoRoom> {
        self.sweep()?;
        let survey = self.survey(digest)?;
        let used_bytes: u64 = survey.sizes.values().sum::<u64>() + survey.promised_bytes;
        let disk = rustix::fs::statvfs(&self.folder).map_err(io::Error::from)?;
        let free_bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(survey.promised_bytes);
        let over = self.budget_bytes.map_or(0, |budget| (used_bytes + need_bytes).saturating_sub(budget));
        let deficit = over.max(need_bytes.saturating_sub(free_bytes));
        let Some(leaving) = victims(&survey.owners, &survey.sizes, deficit) else {
            return Err(self.refused(&survey, need_bytes, over, free_bytes));
        };
        for name in leaving {
            if let Some((digest, locks)) = survey.locks.get(&name) {
                self.evict(digest)?;
                debug_assert!(!locks.is_empty());
            }
        }
        Ok(self.sweep()?)
    }

    fn refused(&self, survey: &Survey, need_bytes: u64, over: u64, free_bytes: u64) -> NoRoom {
        let held = survey.owners.iter().filter(|owner| owner.pinned).flat_map(|owner| &owner.files);
        let held: BTreeSet<u64> = held.copied().collect();
        let held_bytes = held.iter().filter_map(|file| survey.sizes.get(file)).sum();
        match self.budget_bytes {
            Some(budget_bytes) if over > 0 => NoRoom::Budget { need_bytes, budget_bytes, held_bytes },
            Some(_) | None => NoRoom::Disk { need_bytes, free_bytes },
        }
    }

    /// The caller holds the index and both of the checkpoint's locks.
    fn evict(&self, digest: &Digest) -> io::Result<()> {
        tracing::info!(%digest, "checkpoint leaves the cache");
        let snapshot = self.snapshot_path(digest);
        if snapshot.exists() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            // Whoever looks now sees all of it or nothing.
            let leaving = self.partial(digest).join("leaving");
            fs::create_dir_all(self.partial(digest))?;
            missing_is_fine(fs::remove_dir_all(&leaving))?;
            fs::rename(&snapshot, leaving)?;
        }
        missing_is_fine(fs::remove_dir_all(self.partial(digest)))?;
        missing_is_fine(fs::remove_file(self.lock_path(digest, "use")))?;
        missing_is_fine(fs::remove_file(self.lock_path(digest, "fetch")))
    }

    fn survey(&self, mine: &Digest) -> io::Result<Survey> {
        let mut survey =
            Survey { owners: Vec::new(), sizes: BTreeMap::new(), promised_bytes: 0, locks: BTreeMap::new() };
        for (digest, path) in named(&self.folder.join("snapshots"))? {
            let files = inodes(&path.join("files"), &mut survey.sizes)?;
            self.count(&mut survey, &digest, true, files)?;
        }
        for (digest, path) in named(&self.folder.join("partial"))? {
            let mut files = BTreeSet::new();
            let mut there = 0;
            for (_, metadata) in files_of(&path)? {
                survey.sizes.insert(metadata.ino(), metadata.len());
                files.insert(metadata.ino());
                there += metadata.len();
            }
            let busy = self.count(&mut survey, &digest, false, files)?;
            if busy && digest != *mine {
                survey.promised_bytes += reserved(&path).unwrap_or_default().saturating_sub(there);
            }
        }
        Ok(survey)
    }

    /// True when somebody holds or fetches it.
    fn count(&self, survey: &mut Survey, digest: &Digest, whole: bool, files: BTreeSet<u64>) -> io::Result<bool> {
        let name = digest.hex();
        let last_use = fs::metadata(self.lock_path(digest, "use")).and_then(|metadata| metadata.modified());
        if !survey.locks.contains_key(&name) {
            let locks = [self.try_fetch(digest)?, Lock::try_exclusive(&self.lock_path(digest, "use"))?];
            if let [Some(fetch), Some(held)] = locks {
                survey.locks.insert(name.clone(), (*digest, vec![fetch, held]));
            }
        }
        let pinned = !survey.locks.contains_key(&name);
        let last_use = last_use.unwrap_or(SystemTime::UNIX_EPOCH);
        survey.owners.push(Owner { whole, last_use, name, pinned, files });
        Ok(pinned)
    }

    /// Of everything, each file once.
    pub fn used_bytes(&self) -> io::Result<u64> {
        let mut sizes = BTreeMap::new();
        for (_, path) in named(&self.folder.join("snapshots"))? {
            inodes(&path.join("files"), &mut sizes)?;
        }
        for (_, path) in named(&self.folder.join("partial"))? {
            sizes.extend(files_of(&path)?.into_iter().map(|(_, metadata)| (metadata.ino(), metadata.len())));
        }
        Ok(sizes.values().sum())
    }
}

/// Of every file below a folder.
fn inodes(folder: &Path, sizes: &mut BTreeMap<u64, u64>) -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(inodes(&entry.path(), sizes)?);
        } else {
            sizes.insert(metadata.ino(), metadata.len());
            found.insert(metadata.ino());
        }
    }
    Ok(found)
}
