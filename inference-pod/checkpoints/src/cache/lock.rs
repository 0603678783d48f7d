//! Locks between processes, as files: they end with whoever holds them, however that ends.
//! Knows one file; does not know what it protects.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Held until dropped. `flock` belongs to the open file, so two of one process exclude each other as well.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock_shared().map(|()| true)).and_then(|lock| lock.ok_or_else(never))
    }

    pub(crate) fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, |file| file.lock().map(|()| true)).and_then(|lock| lock.ok_or_else(never))
    }

    /// `None` while somebody else holds it.
    pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::take(path, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// Whoever evicts removes the file: a lock on a file that is not at its path any more excludes nobody.
    fn take(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            if !lock(&file)? {
                return Ok(None);
            }
            let held = file.metadata()?;
            match std::fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => return Ok(Some(Self(file))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its file's age is the age of the last use.
    pub(crate) fn touch(&self) {
        if let Err(error) = self.0.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "failed to note the use of a checkpoint");
        }
    }
}

fn never() -> io::Error {
    io::Error::other("a lock that waits was not given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_or_many_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (a, b) = (Lock::shared(&path).unwrap(), Lock::shared(&path).unwrap());
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((a, b));
        let one = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(one);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = Lock::exclusive(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let new = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((old, new));
    }
}
