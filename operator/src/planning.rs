//! The leader's loop: observe, plan, tell pods what to hold, and show the controllers what shall be.
//! Owns what pods were told; decides nothing itself.

mod push;
mod remembered;
mod residency;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use easel_api::engine::{DesiredModel, Generation};
use easel_planner::snapshot::Tenancy;
use easel_planner::{ReplicaId, plan};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::index::{Observed, Told, routing_table, snapshot};
use crate::pod_client::PodClient;
use crate::stores::{Known, Secrets, Tags};
use push::{PushMetrics, Pushes};
use remembered::Remembered;
pub use view::View;

/// Changes come in bursts: what comes within this time is planned together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Nothing is lost that no event announced.
const RESYNC: Duration = Duration::from_secs(30);
/// How long a new leader waits for pods that are ready to say what they hold.
const HEARING: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct PlanMetrics {
    seconds: Histogram,
    models: Gauge,
    pools: Gauge,
    pushes: PushMetrics,
}

impl PlanMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = Histogram::new(exponential_buckets(0.000_1, 4.0, 8)); // 0.1 ms to 1.6 s
        let metrics = Self {
            seconds,
            models: Gauge::default(),
            pools: Gauge::default(),
            pushes: PushMetrics::register(registry),
        };
        registry.register("plan_seconds", "Time to plan the fleet", metrics.seconds.clone());
        registry.register("models", "ImageModels that are planned for", metrics.models.clone());
        registry.register("pools", "GpuPools that are planned with", metrics.pools.clone());
        metrics
    }
}

/// The newest view; `None` until a new leader has planned.
pub type Views = watch::Receiver<Option<Arc<View>>>;

#[derive(Debug)]
pub struct Planning {
    pub term: u64,
    pub observed: watch::Receiver<Arc<Observed>>,
    /// What models' Secrets hold, and what tags were resolved to.
    pub secrets: watch::Receiver<Arc<Secrets>>,
    pub tags: watch::Receiver<Arc<Tags>>,
    pub client: PodClient,
    /// Where a term that a pod has heard of and that is not below ours is told to the elector.
    pub floor: watch::Sender<u64>,
    pub views: watch::Sender<Option<Arc<View>>>,
    pub metrics: PlanMetrics,
}

impl Planning {
    /// Until it is dropped.
    pub async fn run(mut self) {
        let begun = Instant::now();
        let mut pushes = Pushes::new(self.client.clone(), self.metrics.pushes.clone());
        let (mut sequence, mut remembered) = (0, Remembered::new());
        let mut resync = tokio::time::interval(RESYNC);
        loop {
            let forced = tokio::select! {
                changed = self.observed.changed() => if changed.is_err() { return } else { false },
                changed = self.secrets.changed() => if changed.is_err() { return } else { false },
                changed = self.tags.changed() => if changed.is_err() { return } else { false },
                () = pushes.finished() => false,
                _ = resync.tick() => true,
            };
            tokio::time::sleep(DEBOUNCE).await;
            let observed = self.observed.borrow_and_update().clone();
            let secrets = self.secrets.borrow_and_update().clone();
            let known = Known::new(&observed, &secrets, self.tags.borrow_and_update().clone());
            if !heard_all(&observed, &secrets, begun.elapsed()) {
                resync.reset_after(HEARING); // those that stay silent bring no change
                continue;
            }
            self.raise_floor(&observed, sequence);
            pushes.forget_gone(&observed);
            let view = self.plan(&observed, pushes.told(), known, &mut remembered);
            self.push(&mut pushes, &view, &mut sequence);
            self.publish(view, forced);
        }
    }

    fn plan(
        &self,
        observed: &Arc<Observed>,
        told: &BTreeMap<ReplicaId, Told>,
        known: Known,
        remembered: &mut Remembered,
    ) -> View {
        let begun = Instant::now();
        let snapshot = remembered.scale(snapshot(observed, told));
        let plan = plan(&snapshot);
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.models.set(i64::try_from(snapshot.models.len()).unwrap_or(i64::MAX));
        self.metrics.pools.set(i64::try_from(snapshot.pools.len()).unwrap_or(i64::MAX));
        let desired = residency::desired(observed, &snapshot, &plan, &known);
        View::new(observed.clone(), snapshot, plan, desired, known)
    }

    /// Tells every pod that must hear something.
    fn push(&self, pushes: &mut Pushes, view: &View, sequence: &mut u64) {
        let now = Instant::now();
        let table = routing_table(&view.observed);
        for (id, desired) in &view.desired {
            let (Some(pod), Some(report)) = (table.pods.get(id), view.observed.reports.get(id)) else { continue };
            if !pushes.may_begin(id, now) {
                continue;
            }
            let due = residency::due(report, pushes.told().get(id), desired, pushes.age(id, now));
            let residency = match due {
                residency::Due::No => continue,
                residency::Due::Again => pushes.told()[id].clone(),
                residency::Due::New => {
                    *sequence += 1;
                    Told { generation: Generation { term: self.term, sequence: *sequence }, models: desired.clone() }
                }
            };
            pushes.begin(id, &view.observed.pods[id].uid, pod, residency, now);
        }
    }

    fn publish(&self, view: View, forced: bool) {
        self.views.send_if_modified(|held| {
            let changed = held.as_ref().is_none_or(|held| held.facts != view.facts);
            if held.as_ref().is_none_or(|held| held.plan.report != view.plan.report) {
                info!(report = %view.plan.report.to_string().trim_end(), "plan changed");
            }
            if changed || forced {
                debug!(forced, "view published");
                *held = Some(Arc::new(view));
            }
            changed || forced
        });
    }

    /// A pod that has heard more than we have said follows a Lease that was deleted since: our term must be above.
    /// Only pods of the operator's own namespace are believed, because anyone could drive the term up.
    fn raise_floor(&self, observed: &Observed, sequence: u64) {
        let ours = Generation { term: self.term, sequence };
        let shared = |id: &ReplicaId| observed.pods.get(id).is_some_and(|pod| pod.tenancy == Tenancy::Shared);
        let ahead = observed.reports.iter().filter(|(id, report)| shared(id) && report.generation > ours);
        let Some(term) = ahead.map(|(_, report)| report.generation.term).max() else { return };
        if term >= u64::from(i32::MAX.unsigned_abs()) {
            warn!(term, "a pod reports a term that no lease can reach; delete that pod");
            return;
        }
        self.floor.send_if_modified(|floor| {
            let raised = *floor < term;
            *floor = term.max(*floor);
            raised
        });
    }
}

/// Whether every pod that is ready has said what it holds, so that nothing is seated twice, and every Secret was read, so
/// that no pod is told to go on without its credential.
fn heard_all(observed: &Observed, secrets: &Secrets, leading_for: Duration) -> bool {
    let silent = |(id, pod): (&ReplicaId, &Arc<crate::index::ObservedPod>)| {
        pod.ready && !pod.leaving && !observed.reports.contains_key(id)
    };
    let all = secrets.complete && !observed.pods.iter().any(silent);
    observed.complete && (leading_for >= HEARING || all)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The view of a leader that has told nobody anything yet.
    pub(crate) fn view(observed: Observed) -> View {
        view_with(observed, &Secrets::default(), Tags::default())
    }

    /// The same, once it has asked for these.
    pub(crate) fn view_with(observed: Observed, secrets: &Secrets, tags: Tags) -> View {
        let known = Known::new(&observed, secrets, Arc::new(tags));
        let snapshot = snapshot(&observed, &BTreeMap::new());
        let plan = plan(&snapshot);
        let desired = residency::desired(&observed, &snapshot, &plan, &known);
        View::new(Arc::new(observed), snapshot, plan, desired, known)
    }
}

/// What one pod is told, in the order of names.
pub type Desired = BTreeMap<ReplicaId, Vec<DesiredModel>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{observed, pool, report, shared_pod};

    #[test]
    fn a_new_leader_hears_what_ready_pods_hold_before_it_plans_but_does_not_wait_for_ever() {
        let silent = observed(&[pool("cpu")], &[], &[(shared_pod("a", "cpu", "10.0.0.1"), None)]);
        let (read, unread) = (Secrets { complete: true, ..Secrets::default() }, Secrets::default());
        assert!(!heard_all(&silent, &read, Duration::from_secs(1)));
        assert!(heard_all(&silent, &read, HEARING));
        let speaking = observed(&[pool("cpu")], &[], &[(shared_pod("a", "cpu", "10.0.0.1"), Some(report(1, 1, &[])))]);
        assert!(heard_all(&speaking, &read, Duration::ZERO));
        assert!(!heard_all(&speaking, &unread, Duration::ZERO));
        assert!(heard_all(&speaking, &unread, HEARING));
        assert!(!heard_all(&Observed { complete: false, ..speaking }, &read, HEARING));
    }
}
