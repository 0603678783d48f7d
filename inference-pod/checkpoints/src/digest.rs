//! The digest of a folder: the SHA-256 of its `sha256sum` listing, so that anyone can make it with a shell.
//! Knows files and hashes; does not know what a checkpoint is.
//!
//! Equal to `cd DIR && find * -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum`. As in that line, names
//! at the top that begin with a dot are left out. What the line would read differently from a loader is refused:
//! links (the listing names neither the link nor where it leads), devices and pipes, and names that it would quote.

use std::fmt;
use std::fs::{DirEntry, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Bytes read at a time: large enough that the reading of a network volume is not bound by calls, and small enough to be
/// in the core's own cache between reading and hashing, which is a fifth faster than 1 MiB.
const CHUNK_BYTES: usize = 256 << 10;
/// Files that are hashed at once: one core hashes slower than a disk or the page cache reads.
const HASH_THREADS: usize = 4;
/// Between two words about progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// A checkpoint has two levels; a folder that is deeper than this is something else.
const MAX_DEPTH: usize = 16;

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(crate) fn finish(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// 64 digits, for names of files.
    pub(crate) fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or(())?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            if !pair.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(());
            }
            let pair = std::str::from_utf8(pair).map_err(|_| ())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("failed to read '{path}'")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("'{0}' is a link, which no digest covers; copy the folder with cp -rL")]
    Link(String),
    #[error("'{0}' is neither a file nor a folder; remove it")]
    Special(String),
    #[error("'{0}' has a name that sha256sum would quote or take for an option; rename it")]
    Name(String),
    #[error("'{0}' lies deeper than 16 folders; a checkpoint has two levels")]
    Deep(String),
    #[error("'{path}' changed while it was read")]
    Changed { path: String },
}

/// The files of a folder, in the order of the listing.
#[derive(Debug)]
pub struct Listing {
    folder: PathBuf,
    /// Path within the folder, as bytes, and size.
    files: Vec<(Vec<u8>, u64)>,
}

impl Listing {
    pub fn read(folder: &Path) -> Result<Self, ListError> {
        Self::walk(folder, false)
    }

    /// Names at the top that begin with a dot as well.
    pub(crate) fn read_all(folder: &Path) -> Result<Self, ListError> {
        Self::walk(folder, true)
    }

    fn walk(folder: &Path, hidden: bool) -> Result<Self, ListError> {
        let mut walk = Walk { hidden, files: Vec::new() };
        walk.folder(folder, &mut Vec::new(), 0)?;
        walk.files.sort_unstable();
        Ok(Self { folder: folder.to_owned(), files: walk.files })
    }

    pub fn files(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.files.iter().map(|(path, bytes)| (path.as_slice(), *bytes))
    }

    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Reads every file. `progress` gets bytes done and in all, and says whether to go on; `None` when it says no.
    pub fn digest(&self, progress: impl FnMut(u64, u64) -> bool) -> Result<Option<Digest>, ListError> {
        let Some(hashes) = hash_files(&self.folder, &self.files, progress)? else { return Ok(None) };
        let lines = self.files.iter().zip(&hashes).map(|((path, _), hash)| (path.as_slice(), *hash));
        Ok(Some(Digest::of(&listing(lines))))
    }
}

/// The text of `sha256sum`, of files in the order of their paths.
pub(crate) fn listing<'a>(files: impl Iterator<Item = (&'a [u8], Digest)>) -> Vec<u8> {
    let mut text = Vec::new();
    for (path, Digest(hash)) in files {
        text.extend_from_slice(hex(&hash).as_bytes());
        text.extend_from_slice(b"  ");
        text.extend_from_slice(path);
        text.push(b'\n');
    }
    text
}

/// Hashes files of a folder, several at a time, and gives their digests in the order of `files` (path and size).
/// `progress` gets bytes done and in all, and says whether to go on; `None` when it says no.
pub(crate) fn hash_files(
    folder: &Path,
    files: &[(Vec<u8>, u64)],
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<Option<Vec<Digest>>, ListError> {
    let total = files.iter().map(|(_, bytes)| bytes).sum();
    // Largest first, so that no thread is left alone with one at the end.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|file| std::cmp::Reverse(files[*file].1));
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (results, inbox) = mpsc::channel();
    let work = |results: mpsc::Sender<_>| {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Some(file) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (path, bytes) = &files[*file];
            let hash = hash_file(folder, path, *bytes, &mut chunk, |read| {
                done.fetch_add(read, Ordering::Relaxed);
                !stop.load(Ordering::Relaxed)
            });
            if results.send((*file, hash)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..HASH_THREADS.min(files.len()) {
            let results = results.clone();
            scope.spawn(|| work(results));
        }
        drop(results);
        let mut hashes = vec![Digest([0; 32]); files.len()];
        loop {
            match inbox.recv_timeout(PROGRESS_EVERY) {
                Ok((file, Ok(Some(hash)))) => hashes[file] = hash,
                Ok((_, Ok(None))) | Err(RecvTimeoutError::Timeout) => {} // stopped, or nothing new
                Ok((_, Err(error))) => {
                    stop.store(true, Ordering::Relaxed);
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(error);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !stop.load(Ordering::Relaxed) && !progress(done.load(Ordering::Relaxed), total) {
                stop.store(true, Ordering::Relaxed);
                next.store(files.len(), Ordering::Relaxed);
            }
        }
        Ok((!stop.load(Ordering::Relaxed)).then_some(hashes))
    })
}

fn hash_file(
    folder: &Path,
    path: &[u8],
    bytes: u64,
    chunk: &mut [u8],
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Option<Digest>, ListError> {
    let full = folder.join(std::ffi::OsStr::from_bytes(path));
    let failed = |source| ListError::Read { path: show(path), source };
    let mut file = File::open(full).map_err(failed)?;
    let (mut hash, mut seen) = (Sha256::new(), 0);
    loop {
        let read = file.read(chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        seen += read as u64;
        if !progress(read as u64) {
            return Ok(None);
        }
    }
    if seen != bytes {
        return Err(ListError::Changed { path: show(path) });
    }
    Ok(Some(Digest(hash.finalize().into())))
}

struct Walk {
    /// Whether names at the top that begin with a dot count; the shell's `*` leaves them out.
    hidden: bool,
    files: Vec<(Vec<u8>, u64)>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &mut Vec<u8>, depth: usize) -> Result<(), ListError> {
        if depth > MAX_DEPTH {
            return Err(ListError::Deep(show(prefix)));
        }
        let failed = |source| ListError::Read { path: folder.display().to_string(), source };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.as_bytes();
            if depth == 0 && name.starts_with(b".") && !self.hidden {
                continue;
            }
            let length = prefix.len();
            prefix.extend_from_slice(name);
            self.entry(&entry, name, prefix, depth)?;
            prefix.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, name: &[u8], path: &mut Vec<u8>, depth: usize) -> Result<(), ListError> {
        if name.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\')) || (depth == 0 && name.starts_with(b"-")) {
            return Err(ListError::Name(show(path)));
        }
        let failed = |source| ListError::Read { path: show(path), source };
        // Of the entry itself: a link is seen as a link.
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_symlink() {
            return Err(ListError::Link(show(path)));
        }
        if metadata.is_dir() {
            path.push(b'/');
            return self.folder(&entry.path(), path, depth + 1);
        }
        if !metadata.is_file() {
            return Err(ListError::Special(show(path)));
        }
        self.files.push((path.clone(), metadata.len()));
        Ok(())
    }
}

/// For messages; a name in a folder may hold anything.
fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().flat_map(char::escape_debug).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    const SHELL: &str = "find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";

    fn by_shell(folder: &Path) -> String {
        let output = Command::new("sh").arg("-c").arg(SHELL).current_dir(folder).output().unwrap();
        assert!(output.status.success());
        format!("sha256:{}", String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap())
    }

    fn digest(folder: &Path) -> String {
        Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string()
    }

    #[test]
    fn it_is_what_the_shell_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["unet", "unet-2", "unet.d", "vae/deep", "Über", ".git"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        let files = [
            "model_index.json",
            "unet/a b.json",
            "unet/.hidden",
            "unet-2/x",
            "unet.d/x",
            "vae/deep/'quoted\".txt",
            "Über/ß",
            "empty",
            ".git/config",
            ".top",
            "Z",
            "a",
        ];
        for (i, name) in files.iter().enumerate() {
            fs::write(path.join(name), vec![b'x'; i * 300_001]).unwrap();
        }
        fs::write(path.join("empty"), "").unwrap();
        assert_eq!(digest(path), by_shell(path));
    }

    #[test]
    fn links_pipes_and_names_that_the_shell_would_read_otherwise_are_refused() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 5] = [
            ("is a link", |path| std::os::unix::fs::symlink("/etc/passwd", path.join("a")).unwrap()),
            ("is a link", |path| {
                fs::create_dir(path.join("unet")).unwrap();
                std::os::unix::fs::symlink("..", path.join("unet/loop")).unwrap();
            }),
            ("neither", |path| {
                assert!(Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success());
            }),
            ("a name", |path| fs::write(path.join("a\nb"), "").unwrap()),
            ("a name", |path| fs::write(path.join("-delete"), "").unwrap()),
        ];
        for (wanted, make) in cases {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            let error = Listing::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        let listing = Listing::read(folder.path()).unwrap();
        fs::write(folder.path().join("a"), "xy").unwrap();
        assert!(matches!(listing.digest(|_, _| true), Err(ListError::Changed { .. })));
    }

    #[test]
    fn a_digest_reads_back_from_its_text_and_other_texts_do_not() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for wrong in ["", "sha256:", "sha512:00", &text[..70], &text.to_uppercase(), &text.replace('0', "g")] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
