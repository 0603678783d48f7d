//! Reads a pod's stream of events, each as a whole.
//! Knows where an event ends and what it may cost; not what it says.

use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::{Counted, Memory, broken};
use crate::gateway::tries::Fault;

/// What a pod says piece by piece.
#[derive(Debug)]
pub(in crate::gateway) struct Events {
    response: Response,
    /// The event that is being read, and what came with its last bytes: one read of the connection at most.
    read: Vec<u8>,
    /// In which no end has been found.
    searched: usize,
    /// Bytes of one event.
    limit: u64,
}

const END: &[u8] = b"\n\n";

impl Events {
    pub(super) fn new(response: Response, limit: u64) -> Self {
        Self { response, read: Vec::new(), searched: 0, limit }
    }

    /// The next event with its end, or `None` when the pod has said all. Its memory is taken once it has begun, so that
    /// a stream between two events holds none, and counts until the event is dropped.
    pub(in crate::gateway) async fn next(&mut self, memory: &Memory) -> Result<Option<Counted>, Fault> {
        let mut permit = None;
        loop {
            if let Some(end) = self.end() {
                return self.whole(end, permit).map(Some);
            }
            if !self.read.is_empty() && permit.is_none() {
                permit = Some(memory.take(self.limit).await);
            }
            match self.response.chunk().await.map_err(|error| broken(&error))? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Fault::Lost("the pod's answer ended in the middle of an event".into())),
            }
            if self.read.len() as u64 > self.limit && self.end().is_none() {
                return Err(self.too_long());
            }
        }
    }

    fn end(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(END.len() - 1);
        let found = self.read[from..].windows(END.len()).position(|bytes| bytes == END);
        self.searched = self.read.len();
        found.map(|at| from + at + END.len())
    }

    fn whole(&mut self, end: usize, memory: Option<OwnedSemaphorePermit>) -> Result<Counted, Fault> {
        if end as u64 > self.limit {
            return Err(self.too_long());
        }
        let rest = self.read.split_off(end);
        let bytes = std::mem::replace(&mut self.read, rest);
        self.searched = 0;
        Ok(Counted { bytes, _memory: memory }) // without, it is no longer than one read
    }

    fn too_long(&self) -> Fault {
        Fault::Failed(format!("an event of the pod is longer than {} bytes", self.limit))
    }
}
