//! Listens to pods that speak in JSON lines, one listener each, over and over until the pod is gone.
//! Knows the protocol; does not know what is said, nor what it is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use easel_planner::ReplicaId;
use easel_planner::route::Endpoint;
use easel_planner::units::MicroUsdPerHour;
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use crate::pod_client::PodClient;
use crate::routing_table::Pod;

/// Each says something every second; one that is silent so long is not reachable.
pub(super) const SILENCE: Duration = Duration::from_secs(4);
/// Far above a report of a pod full of models, or of a gateway that is asked for a thousand.
const MAX_LINE: usize = 1 << 20;
const BACKOFF_LEAST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// What a listener hears. `None`: the pod does not answer.
#[derive(Debug)]
pub(super) struct Heard<K, T> {
    pub(super) id: K,
    pub(super) uid: String,
    pub(super) said: Option<T>,
}

/// One listener a pod.
#[derive(Debug)]
pub(super) struct Listeners<K, T> {
    client: PodClient,
    path: &'static str,
    heard: mpsc::Sender<Heard<K, T>>,
    running: BTreeMap<K, (ListenTo, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenTo {
    pub(super) uid: String,
    pub(super) pod: Pod,
}

/// Of a pod that has said nothing yet.
pub(super) fn nothing_known(id: ReplicaId) -> Endpoint {
    Endpoint {
        id,
        price: MicroUsdPerHour::default(),
        ready: BTreeMap::new(),
        coming: BTreeSet::new(),
        queued: 0,
        queue_limit: 0,
        draining: false,
    }
}

impl<K, T> Listeners<K, T>
where
    K: Clone + Display + Ord + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
{
    pub(super) fn new(client: PodClient, path: &'static str, heard: mpsc::Sender<Heard<K, T>>) -> Self {
        Self { client, path, heard, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Starts listening to those that are new, and stops with those that are gone.
    pub(super) fn follow(&mut self, wanted: BTreeMap<K, ListenTo>) {
        self.running.retain(|id, (_, handle)| {
            let stays = wanted.contains_key(id);
            if !stays {
                handle.abort();
            }
            stays
        });
        for (id, listen_to) in wanted {
            if self.running.get(&id).is_some_and(|(current, _)| *current == listen_to) {
                continue;
            }
            let ear = Ear { client: self.client.clone(), path: self.path, heard: self.heard.clone(), id: id.clone() };
            let handle = self.tasks.spawn(ear.listen(listen_to.clone()));
            if let Some((_, former)) = self.running.insert(id, (listen_to, handle)) {
                former.abort();
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

/// What one listener has.
struct Ear<K, T> {
    client: PodClient,
    path: &'static str,
    heard: mpsc::Sender<Heard<K, T>>,
    id: K,
}

impl<K: Clone + Display, T: DeserializeOwned> Ear<K, T> {
    /// A stream that breaks is opened again at once, and only a pod that then does not answer counts as silent: one
    /// dropped connection must not take a pod out of the routing.
    async fn listen(self, listen_to: ListenTo) {
        let mut pause = BACKOFF_LEAST;
        loop {
            let mut lines = 0_u64;
            let ended = self.stream(&listen_to, &mut lines).await;
            let error = ended.as_ref().err().map(|error| format!("{error:#}"));
            debug!(pod = %self.id, path = self.path, lines, error, "stream ended");
            if self.heard.is_closed() {
                return;
            }
            if lines > 0 {
                pause = BACKOFF_LEAST;
                continue;
            }
            if self.tell(&listen_to, None).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MOST);
        }
    }

    async fn stream(&self, listen_to: &ListenTo, lines: &mut u64) -> anyhow::Result<()> {
        let request = self.client.request(Method::GET, &listen_to.pod, self.path).send();
        let response = tokio::time::timeout(SILENCE, request).await.context("no answer in time")??;
        let mut response = response.error_for_status()?;
        let mut buffer = Vec::new();
        while let Some(chunk) = tokio::time::timeout(SILENCE, response.chunk()).await.context("silent")?? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let said: T = serde_json::from_slice(&line).context("failed to read a line")?;
                *lines += 1;
                if self.tell(listen_to, Some(said)).await.is_err() {
                    return Ok(());
                }
            }
            ensure!(buffer.len() <= MAX_LINE, "a line has no end");
        }
        Ok(())
    }

    async fn tell(&self, listen_to: &ListenTo, said: Option<T>) -> Result<(), ()> {
        let heard = Heard { id: self.id.clone(), uid: listen_to.uid.clone(), said };
        self.heard.send(heard).await.map_err(drop)
    }
}
