//! The files of a checkpoint as a loader reads them: hashed on their way to it, so that the bytes which are used are the
//! bytes which are proved. Knows files and digests; does not know what a loader makes of them.
//!
//! A loader sees bytes before they are proved, and must do no more than parse them and put them where they belong.
//! [`Files::prove`] hashes what it left and says whether what it made may be used.

mod open;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use open::OpenFile;

use crate::digest::{self, Digest, ListError, Listing};
use crate::layout;
use crate::refusal::{Refusal, Stopped};
use crate::verify::{self, Verified};

/// Of a file that is read whole, before anybody knows whether it is the right one: a tokenizer has 20 MB at most.
const MAX_SMALL_BYTES: u64 = 64 << 20;

/// Gets bytes hashed and in all, from any thread, and says whether to go on.
pub type Watch<'a> = Box<dyn Fn(u64, u64) -> bool + Send + Sync + 'a>;

/// A checkpoint's folder. What is not in its listing is not there.
#[derive(Debug)]
pub struct Files<'a> {
    folder: PathBuf,
    listing: Listing,
    /// `None`: this process has hashed them before.
    proof: Option<Proof<'a>>,
}

struct Proof<'a> {
    wanted: Wanted,
    watch: Watch<'a>,
    /// Of each file of the listing.
    states: Mutex<Vec<State>>,
    done: AtomicU64,
    total: u64,
    stopped: AtomicBool,
}

/// What the hashes must be.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// All together, of a folder that is named so.
    Listing { digest: Digest, path: String },
    /// Each by itself; the paths are those of the listing.
    Each(BTreeMap<Vec<u8>, Digest>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untouched,
    /// A loader has it, and has not read it to its end.
    Open,
    Hashed(Digest),
    /// Read twice, and not the same both times or not wholly.
    Torn,
}

impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("wanted", &self.wanted).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> Files<'a> {
    /// Of a folder that was hashed before, or whose bytes are the caller's own.
    pub fn trusted(folder: &Path) -> Result<Self, ListError> {
        Ok(Self { folder: folder.to_owned(), listing: Listing::read_all(folder)?, proof: None })
    }

    /// Of a folder that shall be the checkpoint which the digest names. Reads names only.
    pub fn unproved(path: &str, digest: &str, watch: Watch<'a>) -> Result<Self, Refusal> {
        let digest = verify::parse(digest)?;
        let listing = verify::list(path)?;
        layout::check(listing.files().map(|(file, _)| file), path)?;
        let wanted = Wanted::Listing { digest, path: path.to_owned() };
        Ok(Self::new(Path::new(path), listing, wanted, watch))
    }

    pub(crate) fn new(folder: &Path, listing: Listing, wanted: Wanted, watch: Watch<'a>) -> Self {
        let (total, count) = (listing.total_bytes(), listing.files().count());
        let states = Mutex::new(vec![State::Untouched; count]);
        let proof = Proof { wanted, watch, states, done: AtomicU64::new(0), total, stopped: AtomicBool::new(false) };
        Self { folder: folder.to_owned(), listing, proof: Some(proof) }
    }

    /// Whether they were hashed before, so that nobody needs to read what is not used.
    pub fn are_proved(&self) -> bool {
        self.proof.is_none()
    }

    pub fn verified(&self) -> Verified {
        let (total_bytes, weight_bytes) = (self.listing.total_bytes(), layout::weight_bytes(self.listing.files()));
        Verified { total_bytes, weight_bytes }
    }

    /// For messages.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    pub fn contains(&self, file: &str) -> bool {
        self.index(file).is_some()
    }

    /// Names of the files in a folder of the checkpoint, not of those below; `""` is the checkpoint's own folder.
    pub fn names<'b>(&'b self, folder: &'b str) -> impl Iterator<Item = &'b str> {
        let paths = self.listing.files().filter_map(|(path, _)| std::str::from_utf8(path).ok());
        let split = |path: &'b str| path.rsplit_once('/').unwrap_or(("", path));
        paths.map(split).filter_map(move |(parent, name)| (parent == folder).then_some(name))
    }

    /// The whole of a small file.
    pub fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let (index, size) = self.find(file)?;
        if size > MAX_SMALL_BYTES {
            let why = format!("it has {size} bytes; a file that is no safetensors file may have {MAX_SMALL_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // One more than there should be, to see a file that grows.
        File::open(self.path(file))?.take(size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(changed(file));
        }
        if let Some(proof) = &self.proof {
            proof.settle(index, State::Untouched, Digest::of(&bytes));
            proof.count(size)?;
        }
        Ok(bytes)
    }

    /// A large file, which the caller reads in parts and hands over to be hashed.
    pub fn open(&self, file: &str) -> io::Result<OpenFile<'_>> {
        let (index, size) = self.find(file)?;
        let opened = File::open(self.path(file))?;
        if opened.metadata()?.len() != size {
            return Err(changed(file));
        }
        if let Some(proof) = &self.proof {
            let state = &mut proof.states()[index];
            *state = if *state == State::Untouched { State::Open } else { State::Torn };
        }
        Ok(OpenFile::new(opened, size, self.proof.as_ref().map(|proof| (proof, index))))
    }

    /// Hashes what was not read, and says whether all of it is what the digest names. What a loader opened it must have
    /// read to the end.
    pub fn prove(&self) -> Result<Verified, Stopped> {
        let Some(proof) = &self.proof else { return Ok(self.verified()) };
        let states = proof.states().clone();
        let unsure = states.iter().position(|state| matches!(state, State::Open | State::Torn));
        if let Some((path, _)) = unsure.and_then(|index| self.listing.files().nth(index)) {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(verify::unreadable(&self.folder.display().to_string(), &ListError::Changed { path }).into());
        }
        self.prove_all(proof)
    }

    /// The same of files of which nothing is used: so that a loader which stumbles over wrong bytes is not blamed.
    pub fn prove_unused(&self) -> Result<Verified, Stopped> {
        let Some(proof) = &self.proof else { return Ok(self.verified()) };
        self.prove_all(proof)
    }

    fn prove_all(&self, proof: &Proof) -> Result<Verified, Stopped> {
        let files: Vec<_> = self.listing.files().map(|(path, bytes)| (path.to_vec(), bytes)).collect();
        let states = proof.states().clone();
        let is_left = |state: &State| !matches!(state, State::Hashed(_));
        let left = files.iter().zip(&states).filter(|(_, state)| is_left(state));
        let left: Vec<_> = left.map(|(file, _)| file.clone()).collect();
        let before = proof.total - left.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let hashed = digest::hash_files(&self.folder, &left, |done, _| proof.says(before + done));
        let hashed = hashed.map_err(|error| verify::unreadable(&self.folder.display().to_string(), &error))?;
        let mut hashed = hashed.ok_or(Stopped::Cancelled)?.into_iter();
        let all = states.into_iter().map_while(|state| match state {
            State::Hashed(digest) => Some(digest),
            State::Untouched | State::Open | State::Torn => hashed.next(),
        });
        let found: BTreeMap<Vec<u8>, Digest> = files.into_iter().map(|(path, _)| path).zip(all).collect();
        proof.wanted.compare(&found)?;
        if proof.stopped.load(Ordering::Relaxed) {
            return Err(Stopped::Cancelled);
        }
        Ok(self.verified())
    }

    fn index(&self, file: &str) -> Option<(usize, u64)> {
        let mut files = self.listing.files().enumerate();
        files.find(|(_, (path, _))| *path == file.as_bytes()).map(|(index, (_, size))| (index, size))
    }

    fn find(&self, file: &str) -> io::Result<(usize, u64)> {
        self.index(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Proof<'_> {
    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that is read twice must be the same both times, or whoever read it first has something else.
    fn settle(&self, index: usize, before: State, digest: Digest) {
        let state = &mut self.states()[index];
        let same = *state == before || *state == State::Hashed(digest);
        *state = if same { State::Hashed(digest) } else { State::Torn };
    }

    /// An error when nobody wants the checkpoint any more.
    fn count(&self, bytes: u64) -> io::Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.says(done) { Ok(()) } else { Err(io::Error::other("the checkpoint is not wanted any more")) }
    }

    fn says(&self, done: u64) -> bool {
        let on = !self.stopped.load(Ordering::Relaxed) && (self.watch)(done.min(self.total), self.total);
        if !on {
            self.stopped.store(true, Ordering::Relaxed);
        }
        on
    }
}

impl Wanted {
    fn compare(&self, found: &BTreeMap<Vec<u8>, Digest>) -> Result<(), Refusal> {
        match self {
            Self::Listing { digest, path } => {
                let lines = found.iter().map(|(path, hash)| (path.as_slice(), *hash));
                let found = Digest::of(&digest::listing(lines));
                if found == *digest { Ok(()) } else { Err(verify::mismatch(path, digest, &found)) }
            }
            Self::Each(digests) if digests == found => Ok(()),
            Self::Each(_) => Err(verify::spoilt()),
        }
    }
}

fn changed(file: &str) -> io::Error {
    io::Error::other(ListError::Changed { path: file.to_owned() })
}

#[cfg(test)]
mod tests;
