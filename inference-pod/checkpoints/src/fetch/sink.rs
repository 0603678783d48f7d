//! Where the bytes of one file go: hashed by one thread, written by another, both in order.
//! Knows one partial file; does not know where bytes come from, nor what they should hash to.
//!
//! Nothing is synced to the disk: a file becomes visible by a rename after its hash was right, and whoever loads it
//! later hashes it again, so what a power cut tears is found and fetched anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cache::Lock;
use crate::digest::Digest;

/// Chunks (some hundred KB each) that wait for either thread.
const QUEUE: usize = 4;
/// Of what is on disk already and is hashed again.
const READ_BYTES: usize = 1 << 20;

pub(crate) struct Sink {
    chunks: mpsc::Sender<Bytes>,
    hashing: JoinHandle<io::Result<Digest>>,
    /// Bytes that were there.
    pub(crate) done: u64,
}

impl Sink {
    /// Goes on with what is in the file. `lock` is held until both threads have ended, so that nobody else writes to
    /// a file that a thread of ours still writes to.
    pub(crate) fn open(path: &Path, size: u64, lock: Arc<Lock>, counted: Arc<AtomicU64>) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut done = file.metadata()?.len();
        if done > size {
            file.set_len(0)?;
            done = 0;
        }
        let (chunks, inbox) = mpsc::channel(QUEUE);
        let (pass, written) = sync_channel(QUEUE);
        let prefix = File::open(path)?;
        let guard = lock.clone();
        let writing = std::thread::Builder::new().name("write".into()).spawn(move || {
            let result = write(&mut file, &written);
            drop(guard);
            result
        })?;
        let hashing = tokio::task::spawn_blocking(move || {
            let hash = hash(prefix.take(done), inbox, &pass, &counted);
            drop(pass);
            // Ends now: what it waited for is closed.
            let written = writing.join().map_err(|_| io::Error::other("the writing thread panicked"))?;
            drop(lock);
            written.and(hash)
        });
        Ok(Self { chunks, hashing, done })
    }

    /// False when a thread has stopped; [`Sink::finish`] says why.
    pub(crate) async fn push(&self, bytes: Bytes) -> bool {
        self.chunks.send(bytes).await.is_ok()
    }

    /// Waits for both threads; what was pushed is in the file.
    pub(crate) async fn finish(self) -> io::Result<Digest> {
        drop(self.chunks);
        self.hashing.await.map_err(io::Error::other)?
    }
}

fn hash(
    mut prefix: io::Take<File>,
    mut inbox: mpsc::Receiver<Bytes>,
    pass: &SyncSender<Bytes>,
    counted: &AtomicU64,
) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; if prefix.limit() > 0 { READ_BYTES } else { 0 }];
    while prefix.limit() > 0 {
        let read = prefix.read(&mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&chunk[..read]);
        counted.fetch_add(read as u64, Ordering::Relaxed);
    }
    while let Some(bytes) = inbox.blocking_recv() {
        // The writer goes first: it has more to do with a chunk than this thread.
        if pass.send(bytes.clone()).is_err() {
            break; // the writer failed and says why
        }
        hash.update(&bytes);
        counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    Ok(Digest::finish(hash))
}

fn write(file: &mut File, chunks: &Receiver<Bytes>) -> io::Result<()> {
    chunks.iter().try_for_each(|bytes| file.write_all(&bytes))
}
