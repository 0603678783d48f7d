//! Checkpoints on a node's disk, shared by every pod that mounts the folder: partial files, whole ones, snapshots.
//! Knows files and locks; does not know stores, and asks nobody to trust what lies here: who loads it hashes it.
//!
//! ```text
//! blobs/HEX                 a whole file, by the SHA-256 of its bytes
//! snapshots/HEX/files/…     a checkpoint, of hard links to blobs; HEX is its digest
//! snapshots/HEX/manifest.json or listing.txt   what the digest is of, and what names every file's digest
//! partial/HEX/…             what is being fetched for a checkpoint, and its room (`reserved`)
//! locks/HEX.fetch, HEX.use  exclusive: who fetches; shared: who holds. Both go with their process
//! locks/index               exclusive: whoever publishes or evicts, for moments
//! ```

mod evict;
mod lock;
mod room;
mod snapshot;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub(crate) use lock::Lock;
pub(crate) use room::NoRoom;
pub(crate) use snapshot::{Named, Proof, Whole, snapshot};

use crate::digest::Digest;

/// What nobody fetches any more stays so long for whoever goes on with it.
const PARTIALS_LIVE: Duration = Duration::from_hours(24);
const RESERVED: &str = "reserved";
const STAGE: &str = "stage";

#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// `None`: as much as the disk holds.
    budget_bytes: Option<u64>,
    evicted: AtomicU64,
}

/// Keeps a checkpoint in the cache for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin(Lock);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.touch(); // the age of its last use counts from now
    }
}

impl Cache {
    /// Makes the folders, and removes what was left half-fetched long ago.
    pub fn open(folder: &Path, budget_bytes: Option<u64>) -> io::Result<Self> {
        for part in ["blobs", "snapshots", "partial", "locks"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let cache = Self { folder: folder.to_owned(), budget_bytes, evicted: AtomicU64::new(0) };
        cache.clean(SystemTime::now())?;
        Ok(cache)
    }

    /// Checkpoints that had to leave since this process opened the cache.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Waits while somebody evicts it, which is short.
    pub(crate) fn pin(&self, digest: &Digest) -> io::Result<Pin> {
        let lock = Lock::shared(&self.lock_path(digest, "use"))?;
        lock.touch();
        Ok(Pin(lock))
    }

    /// The right to fetch a checkpoint; `None` while somebody else has it.
    pub(crate) fn try_fetch(&self, digest: &Digest) -> io::Result<Option<Lock>> {
        Lock::try_exclusive(&self.lock_path(digest, "fetch"))
    }

    /// How far whoever fetches it is: bytes done and in all.
    pub(crate) fn fetching(&self, digest: &Digest) -> Option<(u64, u64)> {
        let partial = self.partial(digest);
        let total = reserved(&partial)?;
        let done = files_of(&partial).ok()?.iter().map(|(_, metadata)| metadata.len()).sum::<u64>();
        Some((done.min(total), total))
    }

    /// Where the parts of a checkpoint are put while it is fetched.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.folder.join("partial").join(digest.hex())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.hex())
    }

    fn snapshot_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("snapshots").join(digest.hex())
    }

    fn lock_path(&self, digest: &Digest, what: &str) -> PathBuf {
        self.folder.join("locks").join(format!("{}.{what}", digest.hex()))
    }

    fn index(&self) -> io::Result<Lock> {
        Lock::exclusive(&self.folder.join("locks/index"))
    }

    /// Forgets what was fetched so far.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        missing_is_fine(fs::remove_dir_all(self.partial(digest)))
    }

    /// Forgets one part whose bytes are wrong, and the whole file that it may be a link to.
    pub(crate) fn drop_part(&self, of: &Digest, part: &Digest) -> io::Result<()> {
        missing_is_fine(fs::remove_file(self.partial(of).join(part.hex())))?;
        missing_is_fine(fs::remove_file(self.blob(part)))
    }

    fn clean(&self, now: SystemTime) -> io::Result<()> {
        let _index = self.index()?;
        for (digest, path) in named(&self.folder.join("partial"))? {
            let age = now.duration_since(fs::metadata(&path)?.modified()?).unwrap_or_default();
            if age > PARTIALS_LIVE && self.try_fetch(&digest)?.is_some() {
                fs::remove_dir_all(&path)?;
            }
        }
        self.sweep()
    }

    /// Removes blobs of which no snapshot and no fetch has a link. The caller holds the index.
    fn sweep(&self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        for (path, metadata) in files_of(&self.folder.join("blobs"))? {
            if metadata.nlink() == 1 {
                missing_is_fine(fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

/// Entries that are named by a digest.
fn named(folder: &Path) -> io::Result<Vec<(Digest, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Ok(digest) = format!("sha256:{name}").parse() {
            found.push((digest, path));
        }
    }
    Ok(found)
}

/// The files of a folder that are named by a digest; a folder that is not there has none.
fn files_of(folder: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let found = match named(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let with = |(_, path): (Digest, PathBuf)| match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None, // went while we looked
        metadata => Some(metadata.map(|metadata| (path, metadata))),
    };
    found.into_iter().filter_map(with).collect()
}

fn reserved(partial: &Path) -> Option<u64> {
    fs::read_to_string(partial.join(RESERVED)).ok()?.trim().parse().ok()
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
