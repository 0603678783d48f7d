//! Whole checkpoints in the cache: made visible at once, and proved again by whoever wants to load one.
//! Knows what a digest is of; does not know how the bytes came.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cache, STAGE, missing_is_fine};
use crate::artifact;
use crate::digest::{Digest, Listing};
use crate::files::{Files, Wanted, Watch};
use crate::refusal::Stopped;
use crate::verify::Verified;

/// What a checkpoint's digest is of. It names the digest of every file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// An OCI manifest.
    Manifest(Vec<u8>),
    /// The text of `sha256sum`.
    Listing(Vec<u8>),
}

impl Proof {
    fn name(&self) -> &'static str {
        match self {
            Self::Manifest(_) => "manifest.json",
            Self::Listing(_) => "listing.txt",
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Manifest(bytes) | Self::Listing(bytes) => bytes,
        }
    }

    /// Path and digest of every file; `None` when it can't be read.
    fn files(&self) -> Option<BTreeMap<Vec<u8>, Digest>> {
        match self {
            Self::Manifest(bytes) => {
                let files = artifact::files(bytes).ok()?;
                Some(files.into_iter().map(|file| (file.path.into_bytes(), file.digest)).collect())
            }
            Self::Listing(bytes) => {
                let line = |line: &str| {
                    let (hash, path) = line.split_once("  ")?;
                    Some((path.as_bytes().to_vec(), format!("sha256:{hash}").parse().ok()?))
                };
                std::str::from_utf8(bytes).ok()?.lines().map(line).collect()
            }
        }
    }
}

/// What each file of a snapshot must hash to.
pub(crate) type Named = BTreeMap<Vec<u8>, Digest>;

/// What a look at a snapshot says.
#[derive(Debug)]
pub(crate) enum Whole {
    Proved(PathBuf, Verified),
    /// There by its names, and not hashed: whoever uses it must.
    There(PathBuf, Verified, Named),
    /// There, but not what the digest names: torn by a power cut, or a bit has flipped.
    Spoilt,
    Absent,
    /// `progress` said no.
    Cancelled,
}

impl Cache {
    /// Makes a checkpoint visible of which every part lies in its partial folder, hashed. `files` are path and digest,
    /// with the part's name. The caller has the fetch lock and a pin.
    pub(crate) fn publish(
        &self,
        of: &Digest,
        proof: &Proof,
        files: &[(String, Digest, Digest)],
    ) -> io::Result<PathBuf> {
        let (partial, snapshot) = (self.partial(of), self.snapshot_path(of));
        let stage = partial.join(STAGE);
        missing_is_fine(fs::remove_dir_all(&stage))?;
        fs::create_dir_all(stage.join("files"))?;
        fs::write(stage.join(proof.name()), proof.bytes())?;
        let _index = self.index()?;
        for (path, digest, part) in files {
            let (blob, target) = (self.blob(digest), stage.join("files").join(path));
            // What was just hashed replaces what lay there. The part is gone when two files have the same bytes.
            missing_is_fine(fs::rename(partial.join(part.hex()), &blob))?;
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::hard_link(&blob, target)?;
        }
        if snapshot.exists() {
            fs::rename(&snapshot, partial.join("leaving"))?;
        }
        fs::rename(&stage, &snapshot)?;
        fs::remove_dir_all(&partial)?;
        Ok(snapshot.join("files"))
    }

    /// Looks at a snapshot's names, if there is one. The caller has a pin.
    pub(crate) fn find(&self, of: &Digest) -> Whole {
        let snapshot = self.snapshot_path(of);
        let Some(proof) = self.proof(of) else {
            return if snapshot.exists() { Whole::Spoilt } else { Whole::Absent };
        };
        let Some(named) = proof.files().filter(|_| Digest::of(proof.bytes()) == *of) else { return Whole::Spoilt };
        match listed(&snapshot.join("files"), &named) {
            Some(verified) => Whole::There(snapshot.join("files"), verified, named),
            None => Whole::Spoilt,
        }
    }

    /// Hashes a snapshot, if there is one. The caller has a pin.
    pub(crate) fn prove(&self, of: &Digest, watch: Watch) -> Whole {
        let (folder, named) = match self.find(of) {
            Whole::There(folder, _, named) => (folder, named),
            other => return other,
        };
        match snapshot(&folder, &named, watch).map(|files| files.prove()) {
            Some(Ok(verified)) => Whole::Proved(folder, verified),
            Some(Err(Stopped::Refused(_))) | None => Whole::Spoilt,
            Some(Err(Stopped::Cancelled)) => Whole::Cancelled,
        }
    }

    fn proof(&self, of: &Digest) -> Option<Proof> {
        let read = |name: &str| fs::read(self.snapshot_path(of).join(name)).ok();
        read("manifest.json").map(Proof::Manifest).or_else(|| read("listing.txt").map(Proof::Listing))
    }

    /// Removes a spoilt snapshot and the blobs of its files, so that none of them is borrowed. The caller has the fetch
    /// lock. A pod that has loaded it is not touched: what it has open stays.
    pub(crate) fn discard(&self, of: &Digest) -> io::Result<()> {
        let _index = self.index()?;
        let named = self.proof(of).and_then(|proof| proof.files()).unwrap_or_default();
        for digest in named.values() {
            missing_is_fine(fs::remove_file(self.blob(digest)))?;
        }
        missing_is_fine(fs::remove_dir_all(self.snapshot_path(of)))
    }
}

fn listed(folder: &Path, named: &Named) -> Option<Verified> {
    let files = snapshot(folder, named, Box::new(|_, _| true))?;
    Some(files.verified())
}

/// The files of a snapshot, unless others lie there than are named.
pub(crate) fn snapshot<'a>(folder: &Path, named: &Named, watch: Watch<'a>) -> Option<Files<'a>> {
    let listing = Listing::read_all(folder).ok()?;
    let same = listing.files().map(|(path, _)| path).eq(named.keys());
    same.then(|| Files::new(folder, listing, Wanted::Each(named.clone()), watch))
}
