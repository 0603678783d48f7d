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

use crate::cache::{Cache, Lock, Pin, Whole};
use crate::digest::Digest;
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

/// A proved checkpoint in the cache, which stays there while this lives.
#[derive(Debug)]
pub struct Held {
    pub folder: PathBuf,
    pub verified: Verified,
    pub receipt: Receipt,
    _pin: Pin,
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
        let (folder, verified, hit) = self.bring(&cache, store, &digest, &source, progress).await?;
        let cache_bytes = blocking({
            let cache = cache.clone();
            move || cache.used_bytes()
        });
        let receipt = Receipt { hit, evicted: cache.evicted(), cache_bytes: cache_bytes.await.unwrap_or_default() };
        Ok(Held { folder, verified, receipt, _pin: pin })
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

    /// The folder, and whether it was there.
    async fn bring(
        &self,
        cache: &Arc<Cache>,
        store: Store,
        digest: &Digest,
        source: &str,
        progress: &Arc<Progress>,
    ) -> Result<(PathBuf, Verified, bool), Refusal> {
        let mut found = prove(cache, digest, progress).await?;
        if let Whole::Proved(folder, verified) = found {
            return Ok((folder, verified, true));
        }
        let (lock, waited) = turn(cache, digest, progress).await?;
        if waited {
            found = prove(cache, digest, progress).await?;
        }
        match found {
            Whole::Proved(folder, verified) => return Ok((folder, verified, true)),
            Whole::Spoilt => {
                tracing::warn!(%digest, "the cache's copy is spoilt and is fetched again");
                cache.discard(digest).map_err(|error| unwritable(&error))?;
            }
            Whole::Absent | Whole::Cancelled => {}
        }
        let (effort, permits) = (self.settings.effort, self.permits.clone());
        let download = Download { cache: cache.clone(), digest: *digest, source, progress, effort, permits };
        let (folder, verified) = download.run(store, lock).await?;
        Ok((folder, verified, false))
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

/// Hashes what is in the cache.
async fn prove(cache: &Arc<Cache>, digest: &Digest, progress: &Arc<Progress>) -> Result<Whole, Refusal> {
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (cache, digest, progress, flag) = (cache.clone(), *digest, progress.clone(), wanted.0.clone());
    let proved = blocking(move || {
        Ok(cache.prove(&digest, |done, total| {
            progress.verifying(done, total);
            flag.load(Ordering::Relaxed)
        }))
    });
    let proved = proved.await.map_err(|error| unwritable(&error));
    drop(wanted);
    proved
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
