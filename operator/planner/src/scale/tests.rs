use proptest::prelude::*;

use super::*;
use crate::names::PoolName;
use crate::snapshot::{Placement, Replica, ReplicaPhase, Resident};
use crate::units::Bytes;

fn id() -> ModelId {
    ModelId::new("d/m")
}

fn world(min: u32, max: Option<u32>, asked: Asked) -> Snapshot {
    let model = Model {
        digest: "sha256:0".into(),
        memory: Bytes(1),
        placement: Placement::Shared,
        pools: Vec::new(),
        replicas: min,
        min_replicas: min,
        max_replicas: max,
        max_per_image: None,
        max_per_hour: None,
        default_steps: 30,
        slos: Vec::new(),
        leaving: false,
    };
    Snapshot { models: [(id(), model)].into(), demand: [(id(), asked)].into(), ..Snapshot::default() }
}

/// Calls of 0.1 s, for nobody has measured.
fn asked(waiting: u32, arrived: u32, calls: u64) -> Asked {
    Asked { waiting, waiting_calls: u64::from(waiting) * calls, arrived, arrived_calls: u64::from(arrived) * calls }
}

fn at(seconds: f64) -> Moment {
    Moment::from_secs(seconds)
}

fn wanted(snapshot: Snapshot, memory: &Memory, now: Moment) -> (Scaling, Memory) {
    let (scaled, memory, scalings) = scale(snapshot, memory, now);
    assert_eq!(scaled.models[&id()].replicas, scalings[&id()].replicas);
    (scalings[&id()], memory)
}

#[test]
fn a_model_without_a_max_has_its_least_whatever_is_asked() {
    let (scaling, _) = wanted(world(2, None, asked(50, 500, 30)), &Memory::default(), at(0.0));
    assert_eq!((scaling.replicas, scaling.why), (2, Why::Fixed));
}

#[test]
fn the_first_request_wakes_a_model_that_is_asleep() {
    let (asleep, memory) = wanted(world(0, Some(4), Asked::default()), &Memory::default(), at(0.0));
    assert_eq!(asleep.replicas, 0);
    let (awake, _) = wanted(world(0, Some(4), asked(1, 1, 30)), &memory, at(1.0));
    assert_eq!(awake.replicas, 1);
}

#[test]
fn demand_scales_up_at_once_and_never_above_the_most() {
    // 60 requests a minute of 3 s keep three replicas drawing: five at 70 %.
    let (scaling, _) = wanted(world(1, Some(8), asked(0, 60, 30)), &Memory::default(), at(0.0));
    assert_eq!(scaling.replicas, 5);
    let (most, _) = wanted(world(1, Some(4), asked(0, 60, 30)), &Memory::default(), at(0.0));
    assert_eq!((most.replicas, most.why), (4, Why::Most { asked: 5 }));
}

#[test]
fn what_waits_without_a_pod_asks_for_replicas_of_its_own() {
    let (few, _) = wanted(world(0, Some(9), asked(1, 1, 30)), &Memory::default(), at(0.0));
    let (many, _) = wanted(world(0, Some(9), asked(30, 30, 30)), &Memory::default(), at(0.0));
    assert!(many.replicas > few.replicas, "{many} {few}");
}

#[test]
fn replicas_go_only_after_demand_has_stayed_down_for_a_minute() {
    let (_, mut memory) = wanted(world(0, Some(8), asked(0, 60, 30)), &Memory::default(), at(0.0));
    for second in 1..60 {
        let (scaling, next) = wanted(world(0, Some(8), Asked::default()), &memory, at(f64::from(second)));
        assert_eq!(scaling.replicas, 5, "after {second} s: {scaling}");
        memory = next;
    }
    let (scaling, _) = wanted(world(0, Some(8), Asked::default()), &memory, at(61.0));
    assert_eq!(scaling.replicas, 0, "{scaling}");
}

#[test]
fn a_new_leader_keeps_what_is_there_for_a_minute() {
    let mut snapshot = world(1, Some(8), Asked::default());
    for name in ["a", "b", "c"] {
        let resident = Resident { digest: "sha256:0".into(), ready: true, step: None };
        let replica = Replica {
            pool: PoolName::new("cpu"),
            tenancy: Tenancy::Shared,
            phase: ReplicaPhase::Current,
            residents: [(id(), resident)].into(),
        };
        snapshot.replicas.insert(crate::ReplicaId::new(name), replica);
    }
    let (scaling, memory) = wanted(snapshot.clone(), &Memory::default(), at(0.0));
    assert_eq!((scaling.replicas, scaling.why), (3, Why::Patience { asked: 1 }));
    assert_eq!(wanted(snapshot, &memory, at(61.0)).0.replicas, 1);
}

#[test]
fn every_decision_says_why() {
    let (scaling, _) = wanted(world(1, Some(8), asked(3, 60, 30)), &Memory::default(), at(0.0));
    assert_eq!(
        scaling.to_string(),
        "5 replicas: what came in a minute keeps 3.0 drawing, and 0.3 more shall draw what waits"
    );
}

proptest! {
    #[test]
    fn replicas_stay_within_their_bounds_and_scaling_twice_changes_nothing(
        min in 0u32..5,
        more in 0u32..5,
        demand in prop::collection::vec((0u32..40, 0u32..400, 1u64..60), 1..12),
    ) {
        let mut memory = Memory::default();
        for (step, (waiting, arrived, calls)) in demand.into_iter().enumerate() {
            let now = at(step as f64 * 17.0);
            let snapshot = world(min, Some(min + more), asked(waiting, arrived, calls));
            let (scaling, next) = wanted(snapshot.clone(), &memory, now);
            prop_assert!((min..=min + more).contains(&scaling.replicas));
            let (again, _) = wanted(snapshot, &next, now);
            prop_assert_eq!(again.replicas, scaling.replicas);
            memory = next;
        }
    }

    #[test]
    fn more_demand_never_gives_fewer_replicas(waiting in 0u32..40, arrived in 1u32..400, more in 0u32..100) {
        let now = at(0.0);
        let (some, _) = wanted(world(0, Some(50), asked(waiting, arrived, 30)), &Memory::default(), now);
        let (most, _) = wanted(world(0, Some(50), asked(waiting, arrived + more, 30)), &Memory::default(), now);
        prop_assert!(most.replicas >= some.replicas);
    }
}
