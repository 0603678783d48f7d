//! One checkpoint from its store into the cache: what to fetch, room for it, all files at once, and the proof.
//! Knows one checkpoint whose fetch lock is held; does not know whether it was there before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use easel_api::engine::RefusalReason;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::file::{self, Effort, FileFault, Shared};
use super::progress::Progress;
use super::{blocking, unwritable};
use crate::cache::{Cache, Lock, NoRoom, Proof};
use crate::digest::{self, Digest};
use crate::layout;
use crate::refusal::Refusal;
use crate::store::{Catalog, Fault, FileIdentity, RemoteFile, Store};
use crate::verify::Verified;

/// Files that are larger than a range, at once: each has two threads.
const LARGE_FILES: usize = 3;
const SMALL_FILES: usize = 6;
/// Of one checkpoint: more than any disk has, and far from where sums of sizes overflow.
const MAX_BYTES: u64 = 1 << 44;

pub(super) struct Download<'a> {
    pub(super) cache: Arc<Cache>,
    pub(super) digest: Digest,
    pub(super) source: &'a str,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) effort: Effort,
    pub(super) permits: Arc<Semaphore>,
}

impl Download<'_> {
    pub(super) async fn run(&self, store: Store, lock: Lock) -> Result<(PathBuf, Verified), Refusal> {
        let catalog = file::patiently(&self.effort, || store.catalog(&self.digest)).await;
        let catalog = catalog.map_err(|fault| self.refused(&fault))?;
        self.check(&catalog)?;
        let parts = parts(&catalog.files);
        let total_bytes = parts.values().map(|file| file.size).sum();
        self.reserve(&parts, matches!(store, Store::Oci(_))).await?;
        self.progress.begin(total_bytes);
        let (effort, permits) = (self.effort, self.permits.clone());
        let (done, fetched) = (self.progress.done.clone(), self.progress.fetched.clone());
        let shared = Shared { store, effort, permits, lock: Arc::new(lock), done, fetched };
        let digests = self.fetch(&shared, &parts).await?;
        let found = self.publish(&catalog, digests).await;
        drop(shared); // and with it the lock, now that everything is visible
        found
    }

    fn refused(&self, fault: &Fault) -> Refusal {
        fault.refusal(self.source, &self.digest.to_string())
    }

    /// Of names and sizes, before a byte is fetched.
    fn check(&self, catalog: &Catalog) -> Result<(), Refusal> {
        let paths: Vec<&str> = catalog.files.iter().map(|file| file.path.as_str()).collect();
        layout::check_paths(&paths, self.source)?;
        layout::check(paths.iter().map(|path| path.as_bytes()), self.source)?;
        let total = catalog.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
        if total > MAX_BYTES {
            return Err(self.refused(&Fault::Unsupported(format!("{total} bytes are no checkpoint's size"))));
        }
        Ok(())
    }

    async fn reserve(&self, parts: &BTreeMap<Digest, RemoteFile>, by_digest: bool) -> Result<(), Refusal> {
        let (cache, digest) = (self.cache.clone(), self.digest);
        let sizes: Vec<_> = parts.iter().map(|(part, file)| (*part, file.size)).collect();
        let reserved = blocking(move || Ok(cache.reserve(&digest, &sizes, by_digest)));
        match reserved.await.map_err(|error| unwritable(&error))? {
            Ok(()) => Ok(()),
            Err(NoRoom::Io(error)) => Err(unwritable(&error)),
            Err(no_room) => Err(Refusal::new(RefusalReason::NoSpace, format!("'{}': {no_room}", self.source))),
        }
    }

    /// Part to digest of its bytes.
    async fn fetch(
        &self,
        shared: &Shared,
        parts: &BTreeMap<Digest, RemoteFile>,
    ) -> Result<BTreeMap<Digest, Digest>, Refusal> {
        let (mut large, small): (Vec<_>, Vec<_>) =
            parts.clone().into_iter().partition(|(_, file)| file.size > self.effort.range_bytes);
        large.sort_by_key(|(_, file)| std::cmp::Reverse(file.size));
        let all = |files: Vec<(Digest, RemoteFile)>, at_once| {
            let fetched = files.into_iter().map(|(part, file)| self.fetch_part(shared, part, file));
            stream::iter(fetched).buffer_unordered(at_once).try_collect::<Vec<_>>()
        };
        let (large, small) = futures::try_join!(all(large, LARGE_FILES), all(small, SMALL_FILES))?;
        Ok(large.into_iter().chain(small).collect())
    }

    async fn fetch_part(&self, shared: &Shared, part: Digest, file: RemoteFile) -> Result<(Digest, Digest), Refusal> {
        let partial = self.cache.partial(&self.digest).join(part.hex());
        let found = file::fetch(shared, &file, &partial).await.map_err(|fault| match fault {
            FileFault::Store(fault) => self.refused(&fault),
            FileFault::Disk(error) => unwritable(&error),
        })?;
        match file.identity {
            FileIdentity::Digest(named) if named != found => {
                // The next try begins anew, and does not borrow the same bytes from another checkpoint.
                self.cache.drop_part(&self.digest, &part).map_err(|error| unwritable(&error))?;
                Err(self.refused(&Fault::Mismatch(format!("'{}'", file.path))))
            }
            FileIdentity::Digest(_) | FileIdentity::ETag(_) => Ok((part, found)),
        }
    }

    async fn publish(
        &self,
        catalog: &Catalog,
        digests: BTreeMap<Digest, Digest>,
    ) -> Result<(PathBuf, Verified), Refusal> {
        let mut files = Vec::new();
        for file in &catalog.files {
            let part = part(file);
            let found = digests.get(&part).ok_or_else(|| self.refused(&Fault::Short))?;
            files.push((file.path.clone(), *found, part));
        }
        let proof = match &catalog.manifest {
            Some(manifest) => Proof::Manifest(manifest.to_vec()),
            None => Proof::Listing(self.listing(&files)?),
        };
        let sizes = || catalog.files.iter().map(|file| (file.path.as_bytes(), file.size));
        let verified = Verified {
            total_bytes: sizes().map(|(_, bytes)| bytes).sum(),
            weight_bytes: layout::weight_bytes(sizes()),
        };
        let (cache, digest) = (self.cache.clone(), self.digest);
        let folder = blocking(move || cache.publish(&digest, &proof, &files)).await;
        Ok((folder.map_err(|error| unwritable(&error))?, verified))
    }

    /// Of a store that names no digests: all together must be what is pinned.
    fn listing(&self, files: &[(String, Digest, Digest)]) -> Result<Vec<u8>, Refusal> {
        let lines: BTreeMap<&[u8], Digest> = files.iter().map(|(path, found, _)| (path.as_bytes(), *found)).collect();
        let listing = digest::listing(lines.into_iter());
        let found = Digest::of(&listing);
        if found == self.digest {
            return Ok(listing);
        }
        // Nobody knows which file it was.
        self.cache.forget(&self.digest).map_err(|error| unwritable(&error))?;
        let message = format!(
            "the files at '{}' have the digest {found}, not {}; they were changed or the upload is torn: push the \
             checkpoint again, or name the digest that you mean",
            self.source, self.digest
        );
        Err(Refusal::new(RefusalReason::DigestMismatch, message))
    }
}

/// Each file once, by the name that its part has in the cache.
fn parts(files: &[RemoteFile]) -> BTreeMap<Digest, RemoteFile> {
    files.iter().map(|file| (part(file), file.clone())).collect()
}

/// The digest of its bytes where a manifest names it; else of what the store says it is, so that a fetch that goes on
/// never mixes two states of an object.
fn part(file: &RemoteFile) -> Digest {
    match &file.identity {
        FileIdentity::Digest(digest) => *digest,
        FileIdentity::ETag(tag) => {
            Digest::of(format!("{}\n{}\n{}", file.path, file.size, tag.as_deref().unwrap_or_default()).as_bytes())
        }
    }
}
