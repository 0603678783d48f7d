//! Turns what is observed into what the planner reads. Pure: equal observations give equal snapshots.
//! Leaves out objects that are wrong by themselves; their controllers say so in the status.

use std::collections::BTreeMap;
use std::time::Duration;

use easel_api::engine::{DesiredModel, Generation, ModelReport, Report};
use easel_planner::snapshot::{Model, Pool, Replica, ReplicaPhase, Resident, Snapshot, Tenancy};
use easel_planner::traffic::Route;
use easel_planner::{ModelId, ReplicaId, RouteId};

use super::{Observed, ObservedPod};

/// What the leader told a pod, and the pod accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub generation: Generation,
    pub models: Vec<DesiredModel>,
}

pub fn snapshot(observed: &Observed, told: &BTreeMap<ReplicaId, Told>) -> Snapshot {
    let pools = observed.pools.iter().filter_map(|(name, pool)| Some((name.clone(), Pool::try_from(&**pool).ok()?)));
    let models = observed.models.iter().filter(|(_, model)| crate::wire::check(model).is_ok());
    let models = models.filter_map(|(id, model)| Some((id.clone(), Model::try_from(&**model).ok()?)));
    let replicas = observed.pods.iter().map(|(id, pod)| {
        let report = observed.reports.get(id).map(|report| &**report);
        let replica = Replica {
            pool: pod.pool.clone(),
            tenancy: pod.tenancy.clone(),
            phase: phase(observed, pod),
            residents: residents(pod, report, told.get(id)),
        };
        (id.clone(), replica)
    });
    Snapshot {
        pools: pools.collect(),
        models: models.collect(),
        replicas: replicas.collect(),
        routes: routes(observed),
        demand: (*observed.demand).clone(),
        ..Snapshot::default() // what was measured is remembered by the leader
    }
}

/// Those that are valid by themselves.
pub(super) fn routes(observed: &Observed) -> BTreeMap<RouteId, Route> {
    observed.routes.iter().filter_map(|(id, route)| Some((id.clone(), Route::try_from(&**route).ok()?))).collect()
}

pub(crate) fn phase(observed: &Observed, pod: &ObservedPod) -> ReplicaPhase {
    match observed.template(&pod.workload) {
        // Without its Deployment nobody keeps it.
        None => ReplicaPhase::Leaving,
        Some(_) if pod.leaving => ReplicaPhase::Leaving,
        Some(template) if pod.template.as_deref() != Some(template) => ReplicaPhase::Outdated,
        Some(_) => ReplicaPhase::Current,
    }
}

/// What the pod was told, as long as it has not said that it heard; what it reports, from then on.
fn residents(pod: &ObservedPod, report: Option<&Report>, told: Option<&Told>) -> BTreeMap<ModelId, Resident> {
    let reported = report.map(|report| reported(pod, report)).unwrap_or_default();
    match told {
        Some(told) if report.is_none_or(|report| report.generation < told.generation) => {
            let resident = |model: &DesiredModel| {
                let id = ModelId::new(model.id.as_str());
                let awaited = Resident { digest: model.checkpoint.digest.clone(), ready: false, step: None };
                let resident = reported.get(&id).cloned().unwrap_or(awaited);
                (id, resident)
            };
            told.models.iter().map(resident).collect()
        }
        Some(_) | None => reported,
    }
}

/// By model. A pod that swaps a checkpoint reports both: the one that answers counts.
pub(super) fn reported(pod: &ObservedPod, report: &Report) -> BTreeMap<ModelId, Resident> {
    let mut residents: BTreeMap<ModelId, Resident> = BTreeMap::new();
    for model in believable(pod, report) {
        let ready = model.state.is_ready();
        let resident = Resident { digest: model.digest.clone(), ready, step: step(model) };
        let held = residents.entry(ModelId::new(model.id.as_str())).or_insert_with(|| resident.clone());
        if ready && !held.ready {
            *held = resident;
        }
    }
    residents
}

/// What a pod says of models that it may hold. The key of a Dedicated pod is a Secret of its tenant's namespace, so
/// its word counts for that tenant's model only, or it could draw other tenants' requests to itself.
pub(crate) fn believable<'a>(pod: &'a ObservedPod, report: &'a Report) -> impl Iterator<Item = &'a ModelReport> {
    report.models.iter().filter(move |model| match &pod.tenancy {
        Tenancy::Shared => true,
        Tenancy::Dedicated(own) => own.as_str() == model.id.as_str(),
    })
}

/// A time that is no time (negative, not a number) counts as not measured.
fn step(model: &ModelReport) -> Option<Duration> {
    model.step_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
}

#[cfg(test)]
mod tests {
    use easel_api::engine::ModelState;
    use serde_json::json;

    use super::*;
    use crate::testing::{changed_pod, model, observed, pool, report, shared_pod, with, with_meta};

    const POD: &str = "easel-system/a";

    fn one_pod(report: Option<Report>) -> Observed {
        observed(&[pool("cpu")], &[model("art", "m")], &[(shared_pod("a", "cpu", "10.0.0.1"), report)])
    }

    fn told(sequence: u64, models: &[&str]) -> BTreeMap<ReplicaId, Told> {
        let desired =
            |id: &&str| crate::wire::desired(&ModelId::new(*id), &model("art", "m"), None, |_| None).unwrap().unwrap();
        let told = Told { generation: Generation { term: 1, sequence }, models: models.iter().map(desired).collect() };
        [(ReplicaId::new(POD), told)].into()
    }

    fn held(observed: &Observed, told: &BTreeMap<ReplicaId, Told>) -> Vec<(String, bool)> {
        let snapshot = snapshot(observed, told);
        let residents = &snapshot.replicas[&ReplicaId::new(POD)].residents;
        residents.iter().map(|(id, resident)| (id.to_string(), resident.ready)).collect()
    }

    #[test]
    fn what_was_told_counts_until_the_pod_has_heard() {
        let world = one_pod(Some(report(1, 1, &[("art/old", ModelState::Ready)])));
        assert_eq!(held(&world, &BTreeMap::new()), [("art/old".into(), true)]);
        assert_eq!(held(&world, &told(2, &["art/m"])), [("art/m".into(), false)]);
        assert_eq!(held(&world, &told(1, &["art/m"])), [("art/old".into(), true)]);
        assert_eq!(held(&one_pod(None), &told(1, &["art/m"])), [("art/m".into(), false)]);
    }

    #[test]
    fn during_a_swap_the_checkpoint_that_answers_counts() {
        let mut swapping = report(1, 1, &[("art/m", ModelState::Loading), ("art/m", ModelState::Ready)]);
        swapping.models[1].digest = "former".into();
        let snapshot = snapshot(&one_pod(Some(swapping)), &BTreeMap::new());
        let resident = &snapshot.replicas[&ReplicaId::new(POD)].residents[&ModelId::new("art/m")];
        assert_eq!((resident.digest.as_str(), resident.ready), ("former", true));
    }

    #[test]
    fn a_dedicated_pod_speaks_for_its_own_model_only() {
        let labels = json!({"easel.dev/model": "m", "easel.dev/workload": "easel-model-m"});
        let pod = changed_pod(
            shared_pod("a", "cpu", "10.0.0.1"),
            &json!({"metadata": {"namespace": "art", "labels": labels}}),
        );
        let says = report(1, 1, &[("art/m", ModelState::Ready), ("bank/secret", ModelState::Ready)]);
        let (_, pod) = ObservedPod::parse(&pod, "easel-system").unwrap();
        assert_eq!(reported(&pod, &says).keys().map(ModelId::as_str).collect::<Vec<_>>(), ["art/m"]);
    }

    #[test]
    fn a_pods_phase_follows_from_its_deployment() {
        let world = one_pod(None);
        let of = |observed: &Observed| snapshot(observed, &BTreeMap::new()).replicas[&ReplicaId::new(POD)].phase;
        assert_eq!(of(&world), ReplicaPhase::Current);
        assert_eq!(of(&Observed { deployments: BTreeMap::new(), ..world.clone() }), ReplicaPhase::Leaving);
        let pod =
            |fields| observed(&[pool("cpu")], &[], &[(changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &fields), None)]);
        assert_eq!(of(&pod(json!({"metadata": {"labels": {"easel.dev/template": "t0"}}}))), ReplicaPhase::Outdated);
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(of(&pod(deleted)), ReplicaPhase::Leaving);
    }

    #[test]
    fn an_object_that_is_wrong_by_itself_is_left_out_and_one_that_leaves_is_marked() {
        let leaving = with_meta(pool("gone"), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let broken = with(model("art", "broken"), json!({"memory": "much"}));
        let world = observed(&[pool("cpu"), leaving], &[model("art", "m"), broken], &[]);
        let snapshot = snapshot(&world, &BTreeMap::new());
        assert_eq!(snapshot.models.keys().map(ModelId::as_str).collect::<Vec<_>>(), ["art/m"]);
        assert_eq!(snapshot.pools.values().map(|pool| pool.leaving).collect::<Vec<_>>(), [false, true]);
    }
}
