//! The status of an ImageModel: a function of the plan, of what pods say, and of what went wrong.
//! Every condition says what, why and how to mend it.

mod adapters;
mod checkpoint;
mod happenings;

use std::collections::{BTreeMap, BTreeSet};

use easel_crds::condition::{ConditionType, Reason};
use easel_crds::{ImageModel, ImageModelStatus, Placement, PoolReplicas};
use easel_planner::placement::Rejection;
use easel_planner::report::Outcome;
use easel_planner::snapshot::ReplicaPhase;
use easel_planner::{ModelId, PoolName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{Finding, Is, ready, render};
use crate::names::{LABEL_WORKLOAD, Workload, split};
use crate::planning::View;
pub(crate) use happenings::{Happening, happenings};

/// What this reconcile found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The model is wrong by itself.
    pub invalid: Option<String>,
    /// What the API server refused.
    pub failure: Option<String>,
}

/// Whose status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub id: &'a ModelId,
    pub model: &'a ImageModel,
    pub view: &'a View,
    pub found: &'a Found,
}

pub(crate) fn status(
    shown: &Shown<'_>,
    url: Option<&str>,
    operator_namespace: &str,
    before: &[Condition],
    now: Timestamp,
) -> ImageModelStatus {
    let Shown { id, model, view, found } = *shown;
    let pools = pools(id, view);
    let (replicas, ready_replicas) =
        pools.iter().fold((0, 0), |(all, ready), pool| (all + pool.replicas, ready + pool.ready_replicas));
    let placed = placed(id, view, found);
    let digest = checkpoint::digest(shown);
    let verified = checkpoint::verified(shown, digest.as_deref());
    let serving = serving(shown, operator_namespace, ready_replicas);
    let sum = ready(&[&placed, &verified, &serving]);
    let adapters = adapters::available(shown, digest.as_deref());
    let findings: Vec<&Finding> = [&sum, &verified, &placed, &serving].into_iter().chain(&adapters).collect();
    let generation = model.metadata.generation;
    ImageModelStatus {
        observed_generation: generation,
        replicas,
        ready_replicas,
        selector: selector(id, model, &pools, operator_namespace),
        url: url.map(str::to_owned),
        digest: served_digest(id, view),
        checkpoint: Some(checkpoint::status(shown, digest.as_deref())),
        pools,
        conditions: render(&findings, before, generation, now),
    }
}

/// Where the model is wanted, pod by pod; seats in pods that do not exist yet count as well.
fn pools(id: &ModelId, view: &View) -> Vec<PoolReplicas> {
    let mut pools: BTreeMap<&PoolName, (u32, u32)> = BTreeMap::new();
    if let Some(Outcome::Placed { seats } | Outcome::InTurns { seats, .. } | Outcome::Short { seats, .. }) =
        view.plan.outcomes.get(id)
    {
        for (pool, seats) in seats {
            pools.entry(pool).or_default().0 = *seats;
        }
    }
    let mut held: BTreeMap<&PoolName, u32> = BTreeMap::new();
    for (replica, pod) in view.observed.pods.iter().filter(|(_, pod)| !pod.leaving) {
        let desired =
            view.desired.get(replica).is_some_and(|models| models.iter().any(|m| m.id.as_str() == id.as_str()));
        let residents = view.snapshot.replicas.get(replica).map(|replica| &replica.residents);
        let ready = residents.and_then(|residents| residents.get(id)).is_some_and(|resident| resident.ready);
        *held.entry(&pod.pool).or_default() += u32::from(desired);
        pools.entry(&pod.pool).or_default().1 += u32::from(desired && ready);
    }
    let rows = pools.into_iter().map(|(pool, (seats, ready))| PoolReplicas {
        pool: pool.as_str().to_owned(),
        // A surge or a move holds it twice for a while.
        replicas: seats.max(held.get(pool).copied().unwrap_or(0)),
        ready_replicas: ready,
    });
    rows.filter(|row| row.replicas > 0).collect()
}

fn selector(id: &ModelId, model: &ImageModel, pools: &[PoolReplicas], operator_namespace: &str) -> Option<String> {
    let (namespace, name) = split(id);
    let workloads: Vec<String> = match model.spec.placement {
        Placement::Dedicated => {
            vec![Workload::Dedicated { model: name.to_owned(), namespace: namespace.to_owned() }.deployment()]
        }
        // Labels select within one namespace: pods of pools are seen from the operator's.
        Placement::Shared if namespace != operator_namespace => return None,
        Placement::Shared => {
            let shared =
                |row: &PoolReplicas| Workload::Shared { pool: row.pool.clone(), namespace: namespace.to_owned() };
            pools.iter().map(|row| shared(row).deployment()).collect()
        }
    };
    (!workloads.is_empty()).then(|| format!("{LABEL_WORKLOAD} in ({})", workloads.join(",")))
}

/// Of ready replicas; the desired one where both are served.
fn served_digest(id: &ModelId, view: &View) -> Option<String> {
    let desired = view.snapshot.models.get(id).map(|model| model.digest.as_str());
    let served: BTreeSet<&str> = view
        .snapshot
        .replicas
        .values()
        .filter_map(|replica| replica.residents.get(id))
        .filter(|resident| resident.ready)
        .map(|resident| resident.digest.as_str())
        .collect();
    desired.filter(|digest| served.contains(digest)).or_else(|| served.first().copied()).map(str::to_owned)
}

fn placed(id: &ModelId, view: &View, found: &Found) -> Finding {
    let finding = |is, reason, message: String| Finding::new(ConditionType::Placed, is, reason, message);
    if let Some(invalid) = &found.invalid {
        return finding(Is::False, Reason::InvalidSpec, invalid.clone());
    }
    let Some(outcome) = view.plan.outcomes.get(id) else {
        return finding(Is::Unknown, Reason::AwaitingReplica, "the plan has not seen the model yet".into());
    };
    let (is, reason) = match outcome {
        Outcome::Placed { .. } => (Is::True, Reason::Placed),
        Outcome::InTurns { .. } => (Is::True, Reason::PlacedInTurns),
        Outcome::Parked => (Is::False, Reason::Parked),
        Outcome::Asleep => (Is::False, Reason::Asleep),
        Outcome::NoPool { .. } => (Is::False, Reason::NoPool),
        Outcome::Leaving => (Is::False, Reason::InUse),
        Outcome::Short { wanted: _, seats: _, rejections } => (Is::False, shortage(rejections)),
    };
    finding(is, reason, outcome.to_string())
}

/// The reason that is nearest to having room.
fn shortage(rejections: &[(PoolName, Rejection)]) -> Reason {
    let reasons = rejections.iter().map(|(_, rejection)| match rejection {
        Rejection::ReplicaLimit { .. } | Rejection::CostLimit { .. } => (0, Reason::PoolLimitReached),
        Rejection::ImageCeiling { .. } | Rejection::HourCeiling { .. } => (1, Reason::CostCeiling),
        Rejection::TooLittleMemory { .. } => (2, Reason::TooLittleMemory),
        Rejection::PoolLeaving => (3, Reason::NoPool),
        Rejection::UnknownPool => (4, Reason::UnknownPool),
    });
    reasons.min().map_or(Reason::NoPool, |(_, reason)| reason)
}

fn serving(shown: &Shown<'_>, operator_namespace: &str, ready: u32) -> Finding {
    let Shown { id, model: _, view, found } = *shown;
    let wanted = view.snapshot.models.get(id).map_or(0, |model| model.replicas);
    let finding = |is, reason, message: String| Finding::new(ConditionType::Serving, is, reason, message);
    if let Some(failure) = &found.failure {
        let is = if ready > 0 { Is::True } else { Is::False };
        let reason = if ready > 0 { Reason::Serving } else { Reason::NoReadyReplica };
        return finding(is, reason, format!("{ready} of {wanted} replicas answer; {failure}"));
    }
    if ready > 0 {
        return finding(Is::True, Reason::Serving, format!("{ready} of {wanted} replicas answer"));
    }
    let seated = view.plan.outcomes.get(id).map_or(0, Outcome::seated);
    if seated == 0 {
        return finding(Is::False, Reason::NoReadyReplica, "no replica has a place".into());
    }
    match trouble(id, view, operator_namespace) {
        Some(trouble) => finding(Is::False, Reason::NoReadyReplica, trouble),
        None => finding(Is::False, Reason::Starting, format!("0 of {wanted} replicas answer yet")),
    }
}

/// Why pods that the model waits for do not start, or are not even made.
fn trouble(id: &ModelId, view: &View, operator_namespace: &str) -> Option<String> {
    let seats = match view.plan.outcomes.get(id)? {
        Outcome::Placed { seats } | Outcome::InTurns { seats, .. } | Outcome::Short { seats, .. } => seats,
        Outcome::Parked | Outcome::Asleep | Outcome::NoPool { .. } | Outcome::Leaving => return None,
    };
    let (namespace, name) = split(id);
    let dedicated = Workload::Dedicated { model: name.to_owned(), namespace: namespace.to_owned() };
    let shared = |(pool, _): &(PoolName, u32)| Workload::Shared {
        pool: pool.as_str().to_owned(),
        namespace: operator_namespace.to_owned(),
    };
    let workloads: Vec<Workload> = match view.plan.dedicated.get(id) {
        Some(_) => vec![dedicated],
        None => seats.iter().map(shared).collect(),
    };
    workloads.iter().find_map(|workload| workload_trouble(workload, view))
}

fn workload_trouble(workload: &Workload, view: &View) -> Option<String> {
    if let Some(failure) = view.observed.replica_failure(workload) {
        return Some(format!("deployment {} can't make its pods: {failure}", workload.deployment()));
    }
    let current = |id| view.snapshot.replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Current);
    let mut pods = view.observed.pods_of(workload).filter(|(id, _)| current(*id));
    pods.find_map(|(_, pod)| pod.trouble.as_ref().map(|trouble| format!("pod {}: {trouble}", pod.name)))
}

#[cfg(test)]
mod tests;
