//! From a source to a folder whose bytes are proved: out of the cache, or from the store into the cache.
//! Knows the order of the steps; each is somebody else's. Does not know who wants the checkpoint.
//!
//! Beyond the weights on disk a fetcher needs at most 96 MB, however many checkpoints it fetches at once: 64 MB of ranges
//! that wait for their turn, and what the hashing and writing threads have before them.

mod download;
mod file;
mod progress;
mod sink;
mod window;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use easel_api::engine::{Access, Checkpoint, RefusalReason};
use tokio::sync::Semaphore;

pub use file::Effort;
pub use progress::{Progress, Stage};

use crate::cache::{Cache, Lock, Named, Pin, Whole, snapshot};
use crate::digest::Digest;
use crate::files::{Files, Watch};
use crate::refusal::Refusal;
use crate::signature::{self, PublicKey};
use crate::store::{Fault, Store, Timeouts};
use crate::verify::{self, Verified};
use download::Download;

/// Ranges in flight of all fetches: times `range_bytes` it is the memory that waiting bytes take.
const RANGES: usize = 8;
/// Between two looks at what another pod fetches.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct Settings {
    pub cache_dir: PathBuf,
    /// `None`: as much as the disk holds.
    pub cache_bytes: Option<u64>,
    /// Not empty: a checkpoint must be signed with one of them.
    pub keys: Vec<PublicKey>,
    pub effort: Effort,
    pub timeouts: Timeouts,
}

/// Brings checkpoints into the cache.
#[derive(Debug)]
pub struct Fetcher {
    settings: Settings,
    /// Opened with the first fetch: a pod that holds folders only needs none.
    cache: Mutex<Option<Arc<Cache>>>,
    permits: Arc<Semaphore>,
}

/// A checkpoint in the cache, which stays there while this lives.
#[derive(Debug)]
pub struct Held {
    pub folder: PathBuf,
    pub verified: Verified,
    pub receipt: Receipt,
    /// Its digest and what its files must hash to, if it was there and this process has not hashed it.
    unproved: Option<Box<(Digest, Named)>>,
    _pin: Pin,
}

impl Held {
    /// Its files; what this process has not hashed yet is hashed while it is read.
    pub fn files<'a>(&self, watch: Watch<'a>) -> Result<Files<'a>, Refusal> {
        match &self.unproved {
            Some(unproved) => snapshot(&self.folder, &unproved.1, watch).ok_or_else(verify::spoilt),
            None => Files::trusted(&self.folder)
                .map_err(|error| verify::unreadable(&self.folder.display().to_string(), &error)),
        }
    }
}

/// Who hashes what is in the cache already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashed {
    Now,
    ByWhoeverUsesIt,
}

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// It was there already, or another pod brought it.
    pub hit: bool,
    /// That this fetcher made leave, since it began.
    pub evicted: u64,
    pub cache_bytes: u64,
}

/// Where it is, and how it came there.
struct Found {
    folder: PathBuf,
    verified: Verified,
    unproved: Option<Named>,
    hit: bool,
}

impl Found {
    fn in_cache(whole: &Whole) -> Option<Self> {
        let (folder, verified, unproved) = match whole {
            Whole::Proved(folder, verified) => (folder, verified, None),
            Whole::There(folder, verified, named) => (folder, verified, Some(named.clone())),
            Whole::Spoilt | Whole::Absent | Whole::Cancelled => return None,
        };
        Some(Self { folder: folder.clone(), verified: *verified, unproved, hit: true })
    }
}

/// Tells work in other threads that nobody waits for it any more.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Fetcher {
    pub fn new(settings: Settings) -> Self {
        Self { settings, cache: Mutex::new(None), permits: Arc::new(Semaphore::new(RANGES)) }
    }

    /// Before anything of a folder is loaded. Other sources are checked while they are fetched.
    pub fn check_signature(&self, checkpoint: &Checkpoint) -> Result<(), Refusal> {
        let digest = verify::parse(&checkpoint.digest)?;
        if self.settings.keys.is_empty() {
            return Ok(());
        }
        let signature = checkpoint.signature.as_deref();
        signature::verify_detached(&self.settings.keys, &digest, signature).map_err(Refusal::from)
    }

    /// Brings and proves it. Dropping the future stops the work; what has come so far stays for the next try.
    pub async fn fetch(
        &self,
        checkpoint: &Checkpoint,
        access: Option<&Access>,
        progress: &Arc<Progress>,
    ) -> Result<Held, Refusal> {
        self.obtain(checkpoint, access, progress, Hashed::Now).await
    }

    /// The same for whoever reads it through [`Held::files`] and proves it so: what is in the cache is not hashed here.
    pub async fn find(
        &self,
        checkpoint: &Checkpoint,
        access: Option<&Access>,
        progress: &Arc<Progress>,
    ) -> Result<Held, Refusal> {
        self.obtain(checkpoint, access, progress, Hashed::ByWhoeverUsesIt).await
    }

    /// Removes from the cache what turned out to be spoilt, so that it is fetched anew. Nothing happens while somebody
    /// else fetches it already. Waits for the disk.
    pub fn discard(&self, spoilt: &Held) -> Result<(), Refusal> {
        let Some((digest, _)) = spoilt.unproved.as_deref() else { return Ok(()) };
        let Some(cache) = self.cache.lock().ok().and_then(|held| held.clone()) else { return Ok(()) };
        tracing::warn!(%digest, "the cache's copy is spoilt and is fetched again");
        let discarded = match cache.try_fetch(digest) {
            Ok(Some(_lock)) => cache.discard(digest),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        discarded.map_err(|error| unwritable(&error))
    }

    async fn obtain(
        &self,
        checkpoint: &Checkpoint,
        access: Option<&Access>,
        progress: &Arc<Progress>,
        hashed: Hashed,
    ) -> Result<Held, Refusal> {
        let digest = verify::parse(&checkpoint.digest)?;
        let source = checkpoint.source.to_string();
        let refused = |fault: Fault| fault.refusal(&source, &checkpoint.digest);
        let store = Store::open(&checkpoint.source, access, self.settings.timeouts).map_err(refused)?;
        let store = store.ok_or_else(|| refused(Fault::Unsupported("a folder is not fetched".into())))?;
        self.check_trust(&store, &digest, checkpoint).await?;
        let cache = self.open_cache().await?;
        let pin = blocking({
            let cache = cache.clone();
            move || cache.pin(&digest)
        });
        let pin = pin.await.map_err(|error| unwritable(&error))?;
        let found = self.bring(&cache, store, (&digest, &source), progress, hashed).await?;
        let cache_bytes = blocking({
            let cache = cache.clone();
            move || cache.used_bytes()
        });
        let receipt =
            Receipt { hit: found.hit, evicted: cache.evicted(), cache_bytes: cache_bytes.await.unwrap_or_default() };
        let Found { folder, verified, unproved, hit: _ } = found;
        let unproved = unproved.map(|named| Box::new((digest, named)));
        Ok(Held { folder, verified, receipt, unproved, _pin: pin })
    }

    async fn check_trust(&self, store: &Store, digest: &Digest, checkpoint: &Checkpoint) -> Result<(), Refusal> {
        if self.settings.keys.is_empty() {
            return Ok(());
        }
        let found = file::patiently(&self.settings.effort, || store.signatures(digest)).await;
        match found.map_err(|fault| fault.refusal(&checkpoint.source.to_string(), &checkpoint.digest))? {
            Some(found) => signature::verify(&self.settings.keys, digest, &found).map_err(Refusal::from),
            None => self.check_signature(checkpoint),
        }
    }

    async fn bring(
        &self,
        cache: &Arc<Cache>,
        store: Store,
        (digest, source): (&Digest, &str),
        progress: &Arc<Progress>,
        hashed: Hashed,
    ) -> Result<Found, Refusal> {
        let mut found = look(cache, digest, progress, hashed).await?;
        if let Some(found) = Found::in_cache(&found) {
            return Ok(found);
        }
        let (lock, waited) = turn(cache, digest, progress).await?;
        if waited {
            found = look(cache, digest, progress, hashed).await?;
            if let Some(found) = Found::in_cache(&found) {
                return Ok(found);
            }
        }
        if matches!(found, Whole::Spoilt) {
            tracing::warn!(%digest, "the cache's copy is spoilt and is fetched again");
            cache.discard(digest).map_err(|error| unwritable(&error))?;
        }
        let (effort, permits) = (self.settings.effort, self.permits.clone());
        let download = Download { cache: cache.clone(), digest: *digest, source, progress, effort, permits };
        let (folder, verified) = download.run(store, lock).await?;
        Ok(Found { folder, verified, unproved: None, hit: false })
    }

    async fn open_cache(&self) -> Result<Arc<Cache>, Refusal> {
        if let Some(cache) = self.cache.lock().ok().and_then(|held| held.clone()) {
            return Ok(cache);
        }
        let (folder, budget) = (self.settings.cache_dir.clone(), self.settings.cache_bytes);
        let opened = blocking(move || Cache::open(&folder, budget)).await;
        let opened = Arc::new(opened.map_err(|error| no_cache(&self.settings.cache_dir, &error))?);
        if let Ok(mut held) = self.cache.lock() {
            return Ok(held.get_or_insert(opened).clone());
        }
        Ok(opened)
    }
}

/// What is in the cache, hashed if somebody asks for that.
async fn look(cache: &Arc<Cache>, digest: &Digest, progress: &Arc<Progress>, hashed: Hashed) -> Result<Whole, Refusal> {
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (cache, digest, progress, flag) = (cache.clone(), *digest, progress.clone(), wanted.0.clone());
    let watch = move |done, total| {
        progress.verifying(done, total);
        flag.load(Ordering::Relaxed)
    };
    let looked = blocking(move || {
        Ok(match hashed {
            Hashed::Now => cache.prove(&digest, Box::new(watch)),
            Hashed::ByWhoeverUsesIt => cache.find(&digest),
        })
    });
    let looked = looked.await.map_err(|error| unwritable(&error));
    drop(wanted);
    looked
}

/// Waits until nobody else fetches it, and says whether it had to.
async fn turn(cache: &Arc<Cache>, digest: &Digest, progress: &Progress) -> Result<(Lock, bool), Refusal> {
    let mut waited = false;
    loop {
        if let Some(lock) = cache.try_fetch(digest).map_err(|error| unwritable(&error))? {
            return Ok((lock, waited));
        }
        waited = true;
        if let Some((done, total)) = cache.fetching(digest) {
            progress.others(done, total);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Files are waited for by threads that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn no_cache(folder: &Path, error: &io::Error) -> Refusal {
    let message = format!(
        "the cache at '{}' can't be used ({error}); give the pool a cache (spec.cache), or mount a writable volume there",
        folder.display()
    );
    Refusal::new(RefusalReason::NoSpace, message)
}

/// Of a disk that is full, or fails.
fn unwritable(error: &io::Error) -> Refusal {
    let message = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the cache's disk is full; free some space or give the cache a larger disk (spec.cache)".to_owned()
        }
        _ => format!("the cache can't be read or written ({error}); check the volume at --cache-dir"),
    };
    Refusal::new(RefusalReason::NoSpace, message)
}
