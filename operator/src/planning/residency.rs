//! What every pod shall hold, and which pods must be told. Pure.
//! Follows the plan, but never takes a model away before whoever shall hold it instead answers for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use easel_api::engine::{AdapterState, DesiredModel, ModelReport, ModelState, Report, Tier};
use easel_crds::ImageModel;
use easel_planner::snapshot::{Replica, ReplicaPhase, Snapshot, Tenancy};
use easel_planner::{FleetPlan, ModelId, ReplicaId};

use super::Desired;
use crate::index::{Observed, Told};
use crate::stores::{Credential, Known};
use crate::wire;

/// A refused checkpoint is tried again after this time: what was missing may be there now.
pub(super) const RETRY_REFUSED: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    No,
    /// The pod has forgotten, or never heard, what it was told.
    Again,
    /// Something else is wanted.
    New,
}

/// The plan's residency and what must stay a little longer.
pub(super) fn desired(observed: &Observed, snapshot: &Snapshot, plan: &FleetPlan, known: &Known) -> Desired {
    let retained = retained(snapshot, plan);
    let models = |(id, planned): (&ReplicaId, &BTreeSet<ModelId>)| {
        let held: BTreeSet<&ModelId> = planned.iter().chain(retained.get(id).into_iter().flatten()).collect();
        let replica = snapshot.replicas.get(id);
        // Who takes turns is held on the disk at least, and comes up when it is asked for.
        let tier = if plan.turns.contains(id) { Tier::Disk } else { Tier::Device };
        let desired = held.into_iter().filter_map(|id| told(id, observed.models.get(id)?, replica, known));
        (id.clone(), desired.map(|model| DesiredModel { tier, ..model }).collect())
    };
    plan.residency.iter().map(models).collect()
}

/// What a replica is told of a model. Without the credential that the model names it is not told to begin, but what it
/// has begun or holds it keeps: a Secret that goes takes no model away that serves.
fn told(id: &ModelId, model: &ImageModel, replica: Option<&Replica>, known: &Known) -> Option<DesiredModel> {
    let credential = known.credentials.get(id)?;
    let begun = replica.is_some_and(|replica| replica.residents.contains_key(id));
    match credential {
        Credential::None | Credential::Found(_) => {}
        Credential::Missing(_) | Credential::Unread if begun => {}
        Credential::Missing(_) | Credential::Unread => return None,
    }
    let adapters = known.adapters.get(id);
    let access = |name: &str| adapters?.get(name)?.access().cloned();
    wire::desired(id, model, credential.access(), access).ok()?
}

/// Models that answer in a shared replica where the plan no longer has them, while its own seats do not answer yet.
/// Replicas that go as a whole are the planner's to keep; this is for a model that goes where others stay, because its
/// list of pools or its size has changed.
fn retained<'a>(snapshot: &'a Snapshot, plan: &FleetPlan) -> BTreeMap<&'a ReplicaId, BTreeSet<ModelId>> {
    let mut retained: BTreeMap<&ReplicaId, BTreeSet<ModelId>> = BTreeMap::new();
    let mut missing = missing(snapshot, plan);
    for (id, replica) in &snapshot.replicas {
        if replica.tenancy != Tenancy::Shared || replica.phase != ReplicaPhase::Current {
            continue;
        }
        let planned = plan.residency.get(id);
        for (model, resident) in &replica.residents {
            let elsewhere = planned.is_none_or(|planned| !planned.contains(model));
            let Some(missing) = missing.get_mut(model).filter(|missing| **missing > 0) else { continue };
            let staying = retained.entry(id).or_default();
            if elsewhere && resident.ready && has_room(snapshot, replica, planned, staying, model) {
                staying.insert(model.clone());
                *missing -= 1;
            }
        }
    }
    retained
}

/// Seats that the plan has given and that do not answer yet.
fn missing(snapshot: &Snapshot, plan: &FleetPlan) -> BTreeMap<ModelId, u32> {
    let mut missing: BTreeMap<ModelId, u32> =
        plan.outcomes.iter().map(|(model, outcome)| (model.clone(), outcome.seated())).collect();
    for (id, planned) in &plan.residency {
        let residents = snapshot.replicas.get(id).map(|replica| &replica.residents);
        for model in planned {
            let answers = residents.and_then(|residents| residents.get(model)).is_some_and(|resident| resident.ready);
            if let Some(missing) = missing.get_mut(model).filter(|_| answers) {
                *missing = missing.saturating_sub(1);
            }
        }
    }
    missing
}

fn has_room(
    snapshot: &Snapshot,
    replica: &Replica,
    planned: Option<&BTreeSet<ModelId>>,
    staying: &BTreeSet<ModelId>,
    model: &ModelId,
) -> bool {
    let all = planned.into_iter().flatten().chain(staying).chain([model]);
    let needed: u64 = all.filter_map(|id| snapshot.models.get(id)).map(|model| model.memory.0).sum();
    snapshot.pools.get(&replica.pool).is_some_and(|pool| needed <= pool.memory.0)
}

/// Whether a pod must be told. `age` is the time since it last accepted something.
pub(super) fn due(report: &Report, told: Option<&Told>, desired: &[DesiredModel], age: Duration) -> Due {
    let Some(told) = told else { return Due::New };
    let refused = |state: &ModelState| matches!(state, ModelState::Refused { .. });
    let lacks = |model: &ModelReport| {
        model.adapters.iter().any(|adapter| matches!(adapter.state, AdapterState::Refused { .. }))
    };
    if told.models != desired {
        Due::New
    } else if report.generation < told.generation {
        Due::Again
    } else if age >= RETRY_REFUSED && report.models.iter().any(|model| refused(&model.state) || lacks(model)) {
        Due::New
    } else {
        Due::No
    }
}

#[cfg(test)]
mod tests {
    use easel_api::engine::{Generation, RefusalReason};
    use easel_planner::plan;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use std::sync::Arc;

    use super::*;
    use crate::index::snapshot;
    use crate::stores::{Contents, SecretKey, Secrets};
    use crate::testing::{model, observed, pool, report, shared_pod, with};

    fn held(observed: &Observed) -> BTreeMap<String, Vec<String>> {
        let snapshot = snapshot(observed, &BTreeMap::new());
        let known = Known::new(observed, &Secrets::default(), Arc::default());
        let desired = desired(observed, &snapshot, &plan(&snapshot), &known);
        let names = |models: &Vec<DesiredModel>| models.iter().map(|model| model.id.to_string()).collect();
        desired.iter().map(|(id, models)| (id.to_string(), names(models))).collect()
    }

    fn pods(second: ModelState) -> [(Pod, Option<Report>); 2] {
        [
            (shared_pod("a", "old", "10.0.0.1"), Some(report(1, 1, &[("art/m", ModelState::Ready)]))),
            (shared_pod("b", "new", "10.0.0.2"), Some(report(1, 2, &[("art/m", second)]))),
        ]
    }

    #[test]
    fn a_model_stays_where_it_answers_until_its_new_seat_does() {
        let moved = with(model("art", "m"), json!({"pools": ["new"]}));
        let world = |second| observed(&[pool("old"), pool("new")], std::slice::from_ref(&moved), &pods(second));
        let loading = held(&world(ModelState::Loading));
        assert_eq!(
            (&*loading["easel-system/a"], &*loading["easel-system/b"]),
            (&["art/m".into()][..], &["art/m".into()][..])
        );
        let ready = held(&world(ModelState::Ready));
        assert_eq!((ready["easel-system/a"].len(), ready["easel-system/b"].len()), (0, 1));
    }

    #[test]
    fn a_rotated_credential_is_told_and_only_to_those_that_hold_the_model() {
        let named = json!({"uri": "s3://b/m", "digest": "d", "secretRef": {"name": "s"}});
        let wanted = with(model("art", "m"), json!({"checkpoint": named}));
        let pods = pods(ModelState::Loading);
        let world = observed(&[pool("old"), pool("new")], &[wanted, model("art", "other")], &pods);
        let snapshot = snapshot(&world, &BTreeMap::new());
        let told = |secret: &str| {
            let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", secret)];
            let data = keys.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).into();
            let key = SecretKey { namespace: "art".into(), name: "s".into() };
            let secrets = Secrets { complete: true, read: [(key, Contents::Found(data))].into() };
            desired(&world, &snapshot, &plan(&snapshot), &Known::new(&world, &secrets, Arc::default()))
        };
        let (first, then) = (told("one"), told("two"));
        let holders = first.values().flatten().filter(|model| model.access.is_some()).count();
        assert_eq!((holders, first == then), (1, false));
        assert!(first.values().flatten().all(|model| model.access.is_none() || model.id.as_str() == "art/m"));
        let accepted = |models: &Vec<DesiredModel>| Told {
            generation: Generation { term: 1, sequence: 1 },
            models: models.clone(),
        };
        let changed = first.iter().filter(|(id, models)| {
            due(&report(1, 1, &[]), Some(&accepted(models)), &then[*id], Duration::ZERO) == Due::New
        });
        assert_eq!(changed.count(), 1);
    }

    #[test]
    fn a_model_that_nobody_wants_leaves_at_once() {
        let parked = with(model("art", "m"), json!({"replicas": {"min": 0}}));
        let world = observed(&[pool("old"), pool("new")], &[parked], &pods(ModelState::Loading));
        assert!(held(&world).values().all(Vec::is_empty));
    }

    #[test]
    fn nothing_stays_where_the_plan_needs_the_room() {
        // `m` moved to pool `new`; the replica of pool `old` is full with `big`.
        let moved = with(model("art", "m"), json!({"pools": ["new"], "memory": "1Gi"}));
        let big = with(model("art", "big"), json!({"pools": ["old"], "memory": "2Gi"}));
        let world = observed(&[pool("old"), pool("new")], &[moved, big], &pods(ModelState::Loading));
        assert_eq!(held(&world)["easel-system/a"], ["art/big"]);
    }

    #[test]
    fn a_pod_is_told_when_it_has_not_heard_or_something_changed_or_a_refusal_is_old() {
        let wanted = vec![wire::desired(&ModelId::new("art/m"), &model("art", "m"), None, |_| None).unwrap().unwrap()];
        let told = Told { generation: Generation { term: 2, sequence: 5 }, models: wanted.clone() };
        let refused = ModelState::Refused { reason: RefusalReason::NotFound, message: "m".into() };
        let (heard, young, old) = (report(2, 5, &[("art/m", ModelState::Ready)]), Duration::ZERO, RETRY_REFUSED);
        assert_eq!(due(&heard, None, &wanted, young), Due::New);
        assert_eq!(due(&heard, Some(&told), &wanted, old), Due::No);
        assert_eq!(due(&heard, Some(&told), &[], young), Due::New);
        assert_eq!(due(&report(0, 0, &[]), Some(&told), &wanted, young), Due::Again);
        let refusing = report(2, 5, &[("art/m", refused)]);
        assert_eq!(due(&refusing, Some(&told), &wanted, young), Due::No);
        assert_eq!(due(&refusing, Some(&told), &wanted, old), Due::New);
    }
}
