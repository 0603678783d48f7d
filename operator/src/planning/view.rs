//! What the controllers act on: the plan beside the observations that it was made from.
//! Knows which of it matters to them, so that a report of every second does not wake them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use easel_api::engine::{AdapterReport, AdapterState, ModelReport, ModelState, Report};
use easel_planner::snapshot::{ReplicaPhase, Snapshot, Tenancy};
use easel_planner::{FleetPlan, ModelId, PoolName, ReplicaId, RouteId};
use kube::Resource;

use super::Desired;
use crate::index::{Observed, ObservedPod};
use crate::stores::Known;

#[derive(Clone, Debug)]
pub struct View {
    pub observed: Arc<Observed>,
    pub snapshot: Snapshot,
    pub plan: FleetPlan,
    pub desired: Desired,
    /// What the stores of models ask for and have said.
    pub known: Known,
    /// Replicas of every pool's shared Deployment: the plan's, or as many as still hold what must stay a while.
    pub shared: BTreeMap<PoolName, u32>,
    pub(super) facts: Facts,
}

/// Equal facts: no controller has anything to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    plan: FleetPlan,
    desired: Desired,
    known: Known,
    pools: BTreeMap<PoolName, Version>,
    models: BTreeMap<ModelId, Version>,
    routes: BTreeMap<RouteId, Version>,
    deployments: Vec<Option<String>>,
    pods: BTreeMap<ReplicaId, Arc<ObservedPod>>,
    reports: BTreeMap<ReplicaId, Vec<(String, String, Stage)>>,
}

/// Generation, and whether deletion was asked for: what a user changes. A status that we wrote is no news.
type Version = (Option<i64>, bool, Vec<String>);

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// Twentieths, of bytes.
    Fetching(u64, u64),
    /// Tenths.
    Verifying(u64),
    Loading,
    Ready,
    Refused(String),
}

impl View {
    pub(crate) fn new(
        observed: Arc<Observed>,
        snapshot: Snapshot,
        plan: FleetPlan,
        desired: Desired,
        known: Known,
    ) -> Self {
        let facts = Facts {
            plan: plan.clone(),
            desired: desired.clone(),
            known: known.clone(),
            pools: observed.pools.iter().map(|(name, pool)| (name.clone(), version(&**pool))).collect(),
            models: observed.models.iter().map(|(id, model)| (id.clone(), version(&**model))).collect(),
            routes: observed.routes.iter().map(|(id, route)| (id.clone(), version(&**route))).collect(),
            deployments: observed.deployments.values().map(|d| d.metadata.resource_version.clone()).collect(),
            pods: observed.pods.clone(),
            reports: observed.reports.iter().map(|(id, report)| (id.clone(), stages(report))).collect(),
        };
        let shared =
            plan.shared.iter().map(|(pool, planned)| (pool.clone(), (*planned).max(held(&snapshot, &desired, pool))));
        let shared = shared.collect();
        Self { observed, snapshot, plan, desired, known, shared, facts }
    }

    /// Whether a pod shall hold anything.
    pub fn is_wanted(&self, id: &ReplicaId) -> bool {
        self.desired.get(id).is_some_and(|models| !models.is_empty())
    }
}

/// Current shared replicas of a pool that shall hold something. The outdated are the rolling update's to keep.
fn held(snapshot: &Snapshot, desired: &Desired, pool: &PoolName) -> u32 {
    let holds = desired.iter().filter(|(id, models)| {
        let shared = |replica: &easel_planner::snapshot::Replica| {
            replica.pool == *pool && replica.tenancy == Tenancy::Shared && replica.phase == ReplicaPhase::Current
        };
        !models.is_empty() && snapshot.replicas.get(id).is_some_and(shared)
    });
    u32::try_from(holds.count()).unwrap_or(u32::MAX)
}

fn version<K: Resource>(object: &K) -> Version {
    let meta = object.meta();
    (meta.generation, meta.deletion_timestamp.is_some(), meta.finalizers.clone().unwrap_or_default())
}

fn stages(report: &Report) -> Vec<(String, String, Stage)> {
    let stage = |state: &ModelState| match state {
        ModelState::Fetching { done_bytes, total_bytes, seconds_left: _ } => {
            Stage::Fetching(done_bytes.saturating_mul(20) / (*total_bytes).max(1), *total_bytes)
        }
        ModelState::Verifying { done_bytes, total_bytes } => Stage::Verifying(done_bytes * 10 / (*total_bytes).max(1)),
        ModelState::Loading | ModelState::WarmingUp => Stage::Loading,
        ModelState::Ready => Stage::Ready,
        ModelState::Refused { reason: _, message } => Stage::Refused(message.clone()),
    };
    let adapter = |adapter: &AdapterReport| match &adapter.state {
        AdapterState::Fetching => Stage::Fetching(0, 0),
        // Which of them is in memory changes with every request.
        AdapterState::OnDisk | AdapterState::InMemory { bytes: _ } => Stage::Ready,
        AdapterState::Refused { reason: _, message } => Stage::Refused(message.clone()),
    };
    let of = |model: &ModelReport| {
        let name = |adapter: &AdapterReport| format!("{}/{}", model.id, adapter.name);
        let adapters = model.adapters.iter().map(|a| (name(a), a.digest.clone(), adapter(a)));
        let own = (model.id.0.clone(), model.digest.clone(), stage(&model.state));
        std::iter::once(own).chain(adapters).collect::<Vec<_>>()
    };
    report.models.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::planning::testing::view as of;
    use crate::testing::{model, observed, pool, report, shared_pod, with};

    fn view(report: Report) -> View {
        let world =
            observed(&[pool("cpu")], &[model("art", "m")], &[(shared_pod("a", "cpu", "10.0.0.1"), Some(report))]);
        of(world)
    }

    #[test]
    fn a_queue_is_no_news_and_a_stage_is() {
        let fetching = |done, left| {
            let state = ModelState::Fetching { done_bytes: done, total_bytes: 100, seconds_left: Some(left) };
            view(report(1, 1, &[("art/m", state)]))
        };
        assert_eq!(fetching(10, 9).facts, fetching(14, 8).facts);
        assert_ne!(fetching(10, 9).facts, fetching(15, 8).facts);
        let verifying = |done| report(1, 1, &[("art/m", ModelState::Verifying { done_bytes: done, total_bytes: 100 })]);
        let first = view(verifying(1));
        assert_eq!(first.facts, view(Report { waiting: 7, ..verifying(9) }).facts);
        assert_ne!(first.facts, view(verifying(10)).facts);
        assert_ne!(first.facts, view(report(1, 1, &[("art/m", ModelState::Ready)])).facts);
    }

    #[test]
    fn a_deployment_keeps_the_replicas_that_answer_for_someone_who_moves() {
        let moved = with(model("art", "m"), json!({"pools": ["new"]}));
        let ready = Some(report(1, 1, &[("art/m", ModelState::Ready)]));
        let pods = [(shared_pod("a", "old", "10.0.0.1"), ready)];
        let view = of(observed(&[pool("old"), pool("new")], &[moved], &pods));
        assert_eq!(view.plan.shared[&PoolName::new("old")], 0);
        assert_eq!(view.shared[&PoolName::new("old")], 1);
        assert_eq!(view.shared[&PoolName::new("new")], 1);
    }
}
