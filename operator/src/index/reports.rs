//! Listens to one pod: its load report as JSON lines, over and over until the pod is gone.
//! Knows the protocol; does not know what the report is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use easel_api::engine::{REPORT_PATH, Report};
use easel_planner::ReplicaId;
use easel_planner::route::Endpoint;
use easel_planner::units::MicroUsdPerHour;
use reqwest::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::ObservedPod;
use super::routes::address;
use crate::pod_client::PodClient;
use crate::routing_table::Pod;

/// A pod says something every second; one that is silent so long is not reachable.
const SILENCE: Duration = Duration::from_secs(4);
/// Far above a report of a pod full of models.
const MAX_LINE: usize = 1 << 20;
const BACKOFF_LEAST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// What a listener hears. `None`: the pod does not answer.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) id: ReplicaId,
    pub(super) uid: String,
    pub(super) report: Option<Report>,
}

/// One listener a pod.
#[derive(Debug)]
pub(super) struct Listeners {
    client: PodClient,
    heard: mpsc::Sender<Heard>,
    running: BTreeMap<ReplicaId, (ListenTo, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Debug, PartialEq)]
struct ListenTo {
    uid: String,
    pod: Pod,
}

impl Listeners {
    pub(super) fn new(client: PodClient, heard: mpsc::Sender<Heard>) -> Self {
        Self { client, heard, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Starts listening to pods that have an address now, and stops with those that are gone.
    pub(super) fn follow<'a>(&mut self, pods: impl Iterator<Item = (&'a ReplicaId, &'a ObservedPod)>) {
        let mut wanted = BTreeSet::new();
        for (id, pod) in pods {
            let Some(listen_to) = listen_to(id, pod) else { continue };
            wanted.insert(id.clone());
            if self.running.get(id).is_some_and(|(current, _)| *current == listen_to) {
                continue;
            }
            let task = listen(self.client.clone(), id.clone(), listen_to.clone(), self.heard.clone());
            let handle = self.tasks.spawn(task);
            if let Some((_, former)) = self.running.insert(id.clone(), (listen_to, handle)) {
                former.abort();
            }
        }
        let gone: Vec<_> = self.running.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        for id in gone {
            if let Some((_, handle)) = self.running.remove(&id) {
                handle.abort();
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

fn listen_to(id: &ReplicaId, pod: &ObservedPod) -> Option<ListenTo> {
    let nothing_known = Endpoint {
        id: id.clone(),
        price: MicroUsdPerHour::default(),
        ready: BTreeMap::new(),
        coming: BTreeSet::new(),
        queued: 0,
        queue_limit: 0,
        draining: false,
    };
    Some(ListenTo { uid: pod.uid.clone(), pod: address(pod, nothing_known)? })
}

/// A stream that breaks is opened again at once, and only a pod that then does not answer loses its report: one
/// dropped connection must not take a pod out of the routing.
async fn listen(client: PodClient, id: ReplicaId, listen_to: ListenTo, heard: mpsc::Sender<Heard>) {
    let mut pause = BACKOFF_LEAST;
    loop {
        let mut lines = 0_u64;
        let ended = stream(&client, &id, &listen_to, &heard, &mut lines).await;
        debug!(pod = %id, lines, error = ended.as_ref().err().map(|error| format!("{error:#}")), "report stream ended");
        if heard.is_closed() {
            return;
        }
        if lines > 0 {
            pause = BACKOFF_LEAST;
            continue;
        }
        let silent = Heard { id: id.clone(), uid: listen_to.uid.clone(), report: None };
        if heard.send(silent).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MOST);
    }
}

async fn stream(
    client: &PodClient,
    id: &ReplicaId,
    ListenTo { uid, pod }: &ListenTo,
    heard: &mpsc::Sender<Heard>,
    lines: &mut u64,
) -> anyhow::Result<()> {
    let request = client.request(Method::GET, pod, REPORT_PATH).send();
    let response = tokio::time::timeout(SILENCE, request).await.context("no answer in time")??;
    let mut response = response.error_for_status()?;
    let mut buffer = Vec::new();
    while let Some(chunk) = tokio::time::timeout(SILENCE, response.chunk()).await.context("silent")?? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let report: Report = serde_json::from_slice(&line).context("failed to read a report")?;
            *lines += 1;
            let news = Heard { id: id.clone(), uid: uid.clone(), report: Some(report) };
            if heard.send(news).await.is_err() {
                return Ok(());
            }
        }
        ensure!(buffer.len() <= MAX_LINE, "a report has no end");
    }
    Ok(())
}
