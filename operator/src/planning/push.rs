//! Tells pods what to hold: one PUT at a time for each pod, tried again with growing pauses.
//! Remembers what each pod accepted; does not know what it ought to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use easel_api::engine::{RESIDENCY_PATH, Residency};
use easel_planner::ReplicaId;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::index::{Observed, Told};
use crate::pod_client::PodClient;
use crate::routing_table::Pod;

const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE_LEAST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub(super) struct PushMetrics {
    pushes: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Accepted,
    /// The pod has heard a newer leader.
    Stale,
    Refused,
    Unreachable,
}

impl PushMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("residency_pushes", "Residencies sent to pods, by outcome", metrics.pushes.clone());
        metrics
    }
}

#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("the pod has accepted a newer residency")]
    Stale,
    #[error("the pod answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("failed to reach the pod")]
    Unreachable(#[from] reqwest::Error),
}

impl PushError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Stale => Outcome::Stale,
            Self::Refused { .. } => Outcome::Refused,
            Self::Unreachable(_) => Outcome::Unreachable,
        }
    }
}

/// What a pod last answered.
#[derive(Debug)]
struct Attempt {
    uid: String,
    in_flight: bool,
    failures: u32,
    not_before: Instant,
    accepted: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Pushes {
    client: PodClient,
    metrics: PushMetrics,
    told: BTreeMap<ReplicaId, Told>,
    attempts: BTreeMap<ReplicaId, Attempt>,
    running: JoinSet<(ReplicaId, String, Told, Result<(), PushError>)>,
}

impl Pushes {
    pub(super) fn new(client: PodClient, metrics: PushMetrics) -> Self {
        Self { client, metrics, told: BTreeMap::new(), attempts: BTreeMap::new(), running: JoinSet::new() }
    }

    pub(super) fn told(&self) -> &BTreeMap<ReplicaId, Told> {
        &self.told
    }

    /// Since the pod last accepted something.
    pub(super) fn age(&self, id: &ReplicaId, now: Instant) -> Duration {
        let accepted = self.attempts.get(id).and_then(|attempt| attempt.accepted);
        accepted.map_or(Duration::ZERO, |accepted| now.duration_since(accepted))
    }

    /// Pods that are gone, or are others of the same name, have heard nothing.
    pub(super) fn forget_gone(&mut self, observed: &Observed) {
        let same = |id: &ReplicaId, uid: &str| observed.pods.get(id).is_some_and(|pod| pod.uid == uid);
        self.attempts.retain(|id, attempt| same(id, &attempt.uid));
        self.told.retain(|id, _| self.attempts.contains_key(id));
    }

    /// Nothing is under way, and no pause after a failure lasts.
    pub(super) fn may_begin(&self, id: &ReplicaId, now: Instant) -> bool {
        self.attempts.get(id).is_none_or(|attempt| !attempt.in_flight && now >= attempt.not_before)
    }

    pub(super) fn begin(&mut self, id: &ReplicaId, uid: &str, pod: &Pod, told: Told, now: Instant) {
        let attempt = self.attempts.entry(id.clone()).or_insert_with(|| Attempt {
            uid: uid.to_owned(),
            in_flight: false,
            failures: 0,
            not_before: now,
            accepted: None,
        });
        attempt.in_flight = true;
        let (client, id, uid, pod) = (self.client.clone(), id.clone(), uid.to_owned(), pod.clone());
        self.running.spawn(async move {
            let result = send(&client, &pod, &told).await;
            (id, uid, told, result)
        });
    }

    /// When one has ended, its outcome is booked; or when a pause is over. Never, when there is neither.
    pub(super) async fn finished(&mut self) {
        let now = Instant::now();
        let retry = self.attempts.values().map(|attempt| attempt.not_before).filter(|at| *at > now).min();
        let paused = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.running.join_next() => match ended {
                Ok((id, uid, told, result)) => self.book(id, &uid, told, result),
                Err(error) => warn!(%error, "a push died"),
            },
            () = paused => {}
        }
    }

    fn book(&mut self, id: ReplicaId, uid: &str, told: Told, result: Result<(), PushError>) {
        let outcome = result.as_ref().map_or_else(PushError::outcome, |()| Outcome::Accepted);
        self.metrics.pushes.get_or_create(&Labels { outcome }).inc();
        let Some(attempt) = self.attempts.get_mut(&id).filter(|attempt| attempt.uid == uid) else { return };
        attempt.in_flight = false;
        let generation = told.generation;
        match result {
            Ok(()) => {
                info!(pod = %id, term = generation.term, sequence = generation.sequence, models = told.models.len(), "residency accepted");
                (attempt.failures, attempt.accepted) = (0, Some(Instant::now()));
                self.told.insert(id, told);
            }
            Err(error) => {
                attempt.failures = attempt.failures.saturating_add(1);
                let pause = (PAUSE_LEAST * 2_u32.saturating_pow(attempt.failures - 1).min(1 << 16)).min(PAUSE_MOST);
                attempt.not_before = Instant::now() + pause;
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(pod = %id, term = generation.term, sequence = generation.sequence, %error, cause, "residency not accepted");
            }
        }
    }
}

async fn send(client: &PodClient, pod: &Pod, told: &Told) -> Result<(), PushError> {
    let residency = Residency { generation: told.generation, models: told.models.clone() };
    let request = client.request(Method::PUT, pod, RESIDENCY_PATH).json(&residency).timeout(TIMEOUT);
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::CONFLICT {
        return Err(PushError::Stale);
    }
    let body: String = response.text().await?.chars().take(512).collect();
    Err(PushError::Refused { status, body })
}
