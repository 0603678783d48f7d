//! The status of a GpuPool: what exists of it, what that costs, and whether it may go.
//! A function of the view; knows no client.

use std::collections::BTreeSet;

use easel_crds::condition::{ConditionType, Reason};
use easel_crds::{GpuPool, GpuPoolSpec, GpuPoolStatus};
use easel_planner::PoolName;
use easel_planner::snapshot::{ReplicaPhase, Tenancy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{Finding, Is, render};
use super::model::Found;
use crate::index::ObservedPod;
use crate::planning::View;

/// Names in one status; a pool of thousands must not make an object of megabytes.
const MAX_MODELS: usize = 200;

pub(crate) fn status(
    name: &PoolName,
    pool: &GpuPool,
    view: &View,
    found: &Found,
    before: &[Condition],
    now: Timestamp,
) -> GpuPoolStatus {
    let pods: Vec<(&easel_planner::ReplicaId, &ObservedPod)> = pods(name, view).collect();
    let replicas = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let ready = pods.iter().filter(|(_, pod)| pod.ready && !pod.leaving).count();
    let ready = u32::try_from(ready).unwrap_or(u32::MAX);
    let planned = view.snapshot.pools.get(name);
    let residents: BTreeSet<_> = pods
        .iter()
        .filter_map(|(id, _)| view.snapshot.replicas.get(id))
        .flat_map(|replica| replica.residents.iter().filter(|(_, resident)| resident.ready).map(|(model, _)| model))
        .collect();
    let finding = finding(pool, view, found, &pods, ready);
    let generation = pool.metadata.generation;
    GpuPoolStatus {
        observed_generation: generation,
        devices: Some(devices(pool)),
        replicas,
        ready_replicas: ready,
        usd_per_hour: planned.map(|pool| pool.price.times(replicas).to_string()),
        memory_bytes: planned.map_or(0, |pool| pool.memory.0.saturating_mul(u64::from(replicas))),
        memory_used_bytes: pods.iter().map(|(id, _)| used(id, view)).sum(),
        resident_models: residents.into_iter().take(MAX_MODELS).map(|model| model.as_str().to_owned()).collect(),
        conditions: render(&[&finding], before, generation, now),
    }
}

fn devices(pool: &GpuPool) -> String {
    let GpuPoolSpec { devices, device_class_name, devices_per_replica, .. } = &pool.spec;
    match (devices.as_deref(), device_class_name) {
        (Some("cpu"), _) => "cpu".to_owned(),
        (Some(resource), _) => format!("{devices_per_replica} x {resource}"),
        (None, class) => format!("{devices_per_replica} x {} (device class)", class.as_deref().unwrap_or_default()),
    }
}

/// Pods of the pool, of Shared and Dedicated models.
pub(crate) fn pods<'a>(
    name: &'a PoolName,
    view: &'a View,
) -> impl Iterator<Item = (&'a easel_planner::ReplicaId, &'a ObservedPod)> {
    view.observed.pods.iter().filter(move |(_, pod)| pod.pool == *name).map(|(id, pod)| (id, &**pod))
}

/// What the models of one replica need, by their own word.
fn used(id: &easel_planner::ReplicaId, view: &View) -> u64 {
    let residents = view.snapshot.replicas.get(id).into_iter().flat_map(|replica| replica.residents.keys());
    residents.filter_map(|model| view.snapshot.models.get(model)).map(|model| model.memory.0).sum()
}

fn finding(
    pool: &GpuPool,
    view: &View,
    found: &Found,
    pods: &[(&easel_planner::ReplicaId, &ObservedPod)],
    ready: u32,
) -> Finding {
    let finding = |is, reason, message: String| Finding::new(ConditionType::Ready, is, reason, message);
    if pool.metadata.deletion_timestamp.is_some() {
        return finding(Is::False, Reason::InUse, in_use(view, pods));
    }
    if let Some(invalid) = &found.invalid {
        return finding(Is::False, Reason::InvalidSpec, invalid.clone());
    }
    if let Some(failure) = &found.failure {
        return finding(Is::False, Reason::NoReadyReplica, failure.clone());
    }
    let current = |id: &easel_planner::ReplicaId| {
        view.snapshot.replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Current)
    };
    let trouble = pods.iter().filter(|(id, _)| current(id)).find_map(|(_, pod)| Some((pod, pod.trouble.as_ref()?)));
    match trouble {
        Some((pod, trouble)) => {
            finding(Is::False, Reason::NoReadyReplica, format!("pod {} can't start: {trouble}", pod.name))
        }
        None => finding(Is::True, Reason::PoolReady, format!("{ready} of {} replicas are ready", pods.len())),
    }
}

/// Who holds a pool that shall go.
fn in_use(view: &View, pods: &[(&easel_planner::ReplicaId, &ObservedPod)]) -> String {
    let mut holders = BTreeSet::new();
    for (id, pod) in pods {
        match &pod.tenancy {
            Tenancy::Dedicated(model) => drop(holders.insert(model.as_str())),
            Tenancy::Shared => {
                holders.extend(view.desired.get(id).into_iter().flatten().map(|model| model.id.as_str()));
            }
        }
    }
    if holders.is_empty() {
        return format!("is being deleted; {} replicas are stopping", pods.len());
    }
    let names: Vec<&str> = holders.iter().take(10).copied().collect();
    let more = if holders.len() > names.len() { " and others" } else { "" };
    format!(
        "is being deleted, and held by {}{more} until other pools serve them; give them another pool, or set their replicas.min to 0",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use easel_api::engine::ModelState;
    use serde_json::json;

    use super::*;
    use crate::planning::testing::view;
    use crate::testing::{changed_pod, model, observed, pool, report, shared_pod, with_meta};

    fn of(pool: &GpuPool, view: &View) -> GpuPoolStatus {
        status(&PoolName::new("cpu"), pool, view, &Found::default(), &[], Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_pool_shows_what_exists_and_what_it_costs() {
        let says = report(1, 1, &[("art/m", ModelState::Ready), ("art/n", ModelState::Loading)]);
        let pods = [(shared_pod("a", "cpu", "10.0.0.1"), Some(says)), (shared_pod("b", "cpu", "10.0.0.2"), None)];
        let view = view(observed(&[pool("cpu")], &[model("art", "m"), model("art", "n")], &pods));
        let shown = of(&pool("cpu"), &view);
        assert_eq!((shown.replicas, shown.ready_replicas, shown.usd_per_hour.as_deref()), (2, 2, Some("0.08")));
        assert_eq!((shown.memory_bytes, shown.memory_used_bytes), (4 << 30, 1 << 30));
        assert_eq!(shown.resident_models, ["art/m"]);
        assert_eq!((&*shown.conditions[0].status, &*shown.conditions[0].reason), ("True", "PoolReady"));
    }

    #[test]
    fn a_pool_that_leaves_says_who_holds_it() {
        let leaving = with_meta(pool("cpu"), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let says = report(1, 1, &[("art/m", ModelState::Ready)]);
        let world = observed(
            std::slice::from_ref(&leaving),
            &[model("art", "m")],
            &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says))],
        );
        let shown = of(&leaving, &view(world));
        assert_eq!(&*shown.conditions[0].reason, "InUse");
        assert!(shown.conditions[0].message.contains("art/m"), "{}", shown.conditions[0].message);
    }

    #[test]
    fn a_pod_that_can_not_start_is_shown_with_the_schedulers_words() {
        let status =
            json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node"}]}});
        let pod = changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &status);
        let shown = of(&pool("cpu"), &view(observed(&[pool("cpu")], &[], &[(pod, None)])));
        assert_eq!((&*shown.conditions[0].status, shown.ready_replicas), ("False", 0));
        assert!(shown.conditions[0].message.contains("no node"));
    }
}
