//! One file from its store to the cache: several ranges at once, each tried again where it broke off.
//! Knows one file of one store; does not know which checkpoint it belongs to.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sink::Sink;
use super::window::Window;
use crate::cache::Lock;
use crate::digest::Digest;
use crate::store::{Fault, RemoteFile, Store};

/// How hard a store is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of one range; as many requests are in flight as there are permits.
    pub range_bytes: u64,
    /// Ranges of one file in flight.
    pub ranges_per_file: usize,
    /// Requests without a new byte after which a range is given up.
    pub tries: u32,
    /// Before the second try; doubles, and varies by half so that pods do not come back together.
    pub pause: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Self { range_bytes: 8 << 20, ranges_per_file: 4, tries: 3, pause: Duration::from_millis(500) }
    }
}

/// What the files of one fetch share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) effort: Effort,
    /// One a range that is open: what bounds memory.
    pub(crate) permits: Arc<Semaphore>,
    /// Held as long as anything writes.
    pub(crate) lock: Arc<Lock>,
    /// Bytes hashed.
    pub(crate) done: Arc<AtomicU64>,
    /// Bytes that came from the store.
    pub(crate) fetched: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) enum FileFault {
    Store(Fault),
    Disk(std::io::Error),
}

impl From<Fault> for FileFault {
    fn from(fault: Fault) -> Self {
        Self::Store(fault)
    }
}

/// Brings the whole file to `partial`, going on with what is there, and gives the digest of its bytes.
pub(crate) async fn fetch(shared: &Shared, file: &RemoteFile, partial: &Path) -> Result<Digest, FileFault> {
    let sink = Sink::open(partial, file.size, shared.lock.clone(), shared.done.clone()).map_err(FileFault::Disk)?;
    let streamed = stream(shared, file, &sink).await;
    // A thread's end tells more than that it did not take the next chunk.
    let digest = sink.finish().await.map_err(FileFault::Disk)?;
    streamed.map(|()| digest).map_err(FileFault::Store)
}

async fn stream(shared: &Shared, file: &RemoteFile, sink: &Sink) -> Result<(), Fault> {
    let Effort { range_bytes, ranges_per_file, .. } = shared.effort;
    let mut window = Window::new(sink.done, file.size, range_bytes);
    let mut permits: VecDeque<OwnedSemaphorePermit> = VecDeque::new();
    let mut running = FuturesUnordered::new();
    // Until the first answer nobody knows whether this server gives ranges.
    let mut most = 1;
    while !window.is_done() {
        while window.opened() < most {
            // The first range of a file waits for its turn, so that every file that has begun goes on; further ones
            // take what is left.
            let permit = if permits.is_empty() {
                shared.permits.clone().acquire_owned().await.ok()
            } else {
                shared.permits.clone().try_acquire_owned().ok()
            };
            let Some(permit) = permit else { break };
            let Some(range) = window.open() else { break };
            permits.push_back(permit);
            running.push(Reading::new(shared, file, range, most == 1).next());
        }
        let Some((mut reading, chunk)) = running.next().await else { return Err(Fault::Short) };
        match reading.kind {
            Kind::Whole if reading.alone => reading.range.end = window.widen(),
            Kind::Ranges => most = ranges_per_file,
            Kind::Whole | Kind::Unknown => {}
        }
        if let Some((offset, bytes)) = chunk? {
            shared.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            window.arrived(offset, bytes);
            running.push(reading.next());
        }
        while let Some(bytes) = window.take() {
            if !sink.push(bytes).await {
                return Ok(()); // the sink says why
            }
        }
        for _ in 0..window.closed() {
            permits.pop_front();
        }
    }
    Ok(())
}

/// One range on its way.
struct Reading<'a> {
    shared: &'a Shared,
    file: &'a RemoteFile,
    /// What is missing.
    range: Range<u64>,
    body: Option<BoxStream<'static, Result<Bytes, Fault>>>,
    /// Bytes of the body before the range.
    skip: u64,
    failures: u32,
    /// The first range of the file, beside which there is no other yet: it may go on to the end.
    alone: bool,
    kind: Kind,
}

/// What the server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Ranges,
    Whole,
}

type Chunk = Result<Option<(u64, Bytes)>, Fault>;

impl<'a> Reading<'a> {
    fn new(shared: &'a Shared, file: &'a RemoteFile, range: Range<u64>, alone: bool) -> Self {
        Self { shared, file, range, body: None, skip: 0, failures: 0, alone, kind: Kind::Unknown }
    }

    /// The next bytes, or `None` at the end of the range.
    async fn next(mut self) -> (Self, Chunk) {
        loop {
            if self.range.is_empty() {
                return (self, Ok(None));
            }
            match self.read().await {
                Ok(Some(found)) => {
                    self.failures = 0;
                    return (self, Ok(Some(found)));
                }
                Ok(None) => {}
                Err(fault) => {
                    self.body = None;
                    self.failures += 1;
                    if !fault.may_pass() || self.failures >= self.shared.effort.tries {
                        return (self, Err(fault));
                    }
                    tracing::debug!(file = self.file.path, failures = self.failures, ?fault, "range is tried again");
                    tokio::time::sleep(pause(self.shared.effort.pause, self.failures, jitter())).await;
                }
            }
        }
    }

    /// One chunk; `None` when it lies before the range.
    async fn read(&mut self) -> Result<Option<(u64, Bytes)>, Fault> {
        let body = match &mut self.body {
            Some(body) => body,
            none => {
                let answer = self.shared.store.read(self.file, self.range.clone()).await?;
                self.skip = self.range.start.saturating_sub(answer.offset);
                self.kind = if answer.whole { Kind::Whole } else { Kind::Ranges };
                none.insert(answer.bytes)
            }
        };
        let mut bytes = body.next().await.ok_or(Fault::Short)??;
        let before = self.skip.min(bytes.len() as u64);
        self.skip -= before;
        let _ = bytes.split_to(before as usize);
        let on = self.alone && self.kind == Kind::Whole;
        let end = if on { self.file.size } else { self.range.end };
        bytes.truncate(usize::try_from(end - self.range.start).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(None);
        }
        let offset = self.range.start;
        self.range.start += bytes.len() as u64;
        Ok(Some((offset, bytes)))
    }
}

/// Asks until it is answered, or tried often enough.
pub(crate) async fn patiently<T, F>(effort: &Effort, mut ask: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut failures = 0;
    loop {
        match ask().await {
            Err(fault) if fault.may_pass() && failures + 1 < effort.tries => {
                failures += 1;
                tokio::time::sleep(pause(effort.pause, failures, jitter())).await;
            }
            answer => return answer,
        }
    }
}

fn pause(first: Duration, failures: u32, jitter: f64) -> Duration {
    first.mul_f64(f64::from(1 << failures.saturating_sub(1).min(6)) * (0.5 + jitter))
}

/// In 0..1; from the clock, since nothing secret hangs on it.
fn jitter() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    f64::from(now.subsec_nanos() % 1_000_000) / 1e6
}
