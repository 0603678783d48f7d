use super::*;
use crate::snapshot::{Capacity, Pool, Replica, ReplicaPhase, Resident, Tenancy};
use crate::units::{Bytes, MicroUsd, MicroUsdPerHour, Speed};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn pool(gib: u64, max_replicas: u32, dollars: &str) -> Pool {
    Pool {
        price: MicroUsdPerHour::from_dollars(dollars).unwrap(),
        capacity: Capacity::OnDemand,
        memory: Bytes(gib * GIB),
        host_cache: Bytes(0),
        relative_speed: Speed::ONE,
        overcommit: 1,
        warm_spares: 0,
        max_replicas,
        max_cost: None,
        leaving: false,
    }
}

fn model(gib: u64, min_replicas: u32, placement: Placement, pools: &[&str]) -> Model {
    Model {
        digest: "sha256:0".into(),
        memory: Bytes(gib * GIB),
        placement,
        pools: pools.iter().map(|name| PoolName::new(*name)).collect(),
        replicas: min_replicas,
        min_replicas,
        max_replicas: None,
        max_per_image: None,
        max_per_hour: None,
        default_steps: 20,
        slos: Vec::new(),
        leaving: false,
    }
}

fn snapshot(pools: &[(&str, Pool)], models: &[(&str, Model)]) -> Snapshot {
    Snapshot {
        pools: pools.iter().map(|(name, pool)| (PoolName::new(*name), pool.clone())).collect(),
        models: models.iter().map(|(name, model)| (ModelId::new(*name), model.clone())).collect(),
        ..Snapshot::default()
    }
}

/// The world after Kubernetes and the pods have done what the plan says.
fn applied(snapshot: &Snapshot, plan: &FleetPlan) -> Snapshot {
    let mut next = snapshot.clone();
    let mut spares: BTreeMap<PoolName, u32> = plan.shared.clone();
    let holds = |id: &ReplicaId| plan.residency.get(id).is_some_and(|held| !held.is_empty());
    for (id, replica) in next.replicas.iter().filter(|(_, replica)| replica.tenancy == Tenancy::Shared) {
        let left = spares.entry(replica.pool.clone()).or_default();
        *left = left.saturating_sub(u32::from(holds(id)));
    }
    next.replicas.retain(|id, replica| {
        let shared = replica.tenancy == Tenancy::Shared && replica.phase == ReplicaPhase::Current;
        let spare = spares.get_mut(&replica.pool).filter(|left| shared && !holds(id) && **left > 0);
        let is_spare = spare.map(|left| *left -= 1).is_some();
        (holds(id) || is_spare) && replica.phase == ReplicaPhase::Current
    });
    for (id, replica) in &mut next.replicas {
        replica.residents = residents(&plan.residency[id]);
    }
    let mut names = (0..).map(|serial| ReplicaId::new(format!("new-{serial:04}")));
    let mut make = |next: &mut Snapshot, pool: &PoolName, tenancy: Tenancy, missing: u32| {
        for _ in 0..missing {
            let id = names.find(|id| !next.replicas.contains_key(id)).unwrap();
            let residents = BTreeMap::new();
            let replica =
                Replica { pool: pool.clone(), tenancy: tenancy.clone(), phase: ReplicaPhase::Current, residents };
            next.replicas.insert(id, replica);
        }
    };
    for (pool, replicas) in &plan.shared {
        let have = count(&next, |replica| replica.pool == *pool && replica.tenancy == Tenancy::Shared);
        make(&mut next, pool, Tenancy::Shared, replicas.saturating_sub(have));
    }
    for (id, dedicated) in &plan.dedicated {
        let tenancy = Tenancy::Dedicated(id.clone());
        let have = count(&next, |replica| replica.tenancy == tenancy);
        make(&mut next, &dedicated.pool, tenancy, dedicated.replicas.saturating_sub(have));
    }
    next
}

fn count(snapshot: &Snapshot, matches: impl Fn(&Replica) -> bool) -> u32 {
    u32::try_from(snapshot.replicas.values().filter(|replica| matches(replica)).count()).unwrap()
}

fn residents(models: &BTreeSet<ModelId>) -> BTreeMap<ModelId, Resident> {
    let resident = Resident { digest: "sha256:0".into(), ready: true, step: None };
    models.iter().map(|id| (id.clone(), resident.clone())).collect()
}

/// Plans and applies until every model sits in a replica that exists.
fn settled(snapshot: &Snapshot) -> (Snapshot, FleetPlan) {
    let mut world = snapshot.clone();
    for _ in 0..3 {
        world = applied(&world, &plan(&world));
    }
    let last = plan(&world);
    (world, last)
}

#[test]
fn the_cheapest_pool_that_has_the_memory_is_taken() {
    let world = snapshot(
        &[("big", pool(80, 4, "4")), ("mid", pool(24, 4, "1")), ("tiny", pool(4, 4, "0.1"))],
        &[("d/sdxl", model(10, 1, Placement::Shared, &[]))],
    );
    insta::assert_snapshot!(plan(&world).report.to_string(), @r"
    pool big: 0 replicas, $0.00 an hour
    pool mid: 1 replicas, $1.00 an hour
    pool tiny: 0 replicas, $0.00 an hour
    model d/sdxl: placed: 1 on pool mid
    ");
}

#[test]
fn models_share_a_replica_and_copies_of_one_do_not() {
    let world = snapshot(
        &[("cpu", pool(8, 4, "0.04"))],
        &[("d/a", model(2, 2, Placement::Shared, &[])), ("d/b", model(3, 1, Placement::Shared, &[]))],
    );
    let (_, plan) = settled(&world);
    assert_eq!(plan.shared[&PoolName::new("cpu")], 2);
    let held: Vec<usize> = plan.residency.values().map(BTreeSet::len).collect();
    assert_eq!(held.iter().sum::<usize>(), 3);
}

#[test]
fn a_model_that_does_not_fit_says_so_for_every_pool_that_it_asked() {
    let mut dear = pool(80, 4, "4");
    dear.max_cost = Some(MicroUsdPerHour::from_dollars("3").unwrap());
    let world = snapshot(
        &[("dear", dear), ("small", pool(4, 4, "1")), ("none", pool(80, 0, "1"))],
        &[("d/flux", model(24, 1, Placement::Shared, &["gone", "small", "none", "dear"]))],
    );
    insta::assert_snapshot!(plan(&world).outcomes[&ModelId::new("d/flux")].to_string(), @"0 of 1 replicas placed; pool gone: there is no GpuPool of this name; create it or mend spec.pools; pool small: needs 24 GiB and a replica offers 4 GiB; use a pool with more memory; pool none: all of its 0 replicas are taken; raise the pool's limits.replicas; pool dear: another replica for $4.00 an hour would exceed $3.00 an hour; raise the pool's limits.usdPerHour");
}

#[test]
fn a_dedicated_model_has_its_own_replicas_on_the_first_pool_that_takes_them_all() {
    let world = snapshot(
        &[("a", pool(8, 1, "1")), ("b", pool(8, 4, "2"))],
        &[("d/m", model(4, 3, Placement::Dedicated, &["a", "b"])), ("d/s", model(4, 1, Placement::Shared, &[]))],
    );
    let plan = plan(&world);
    let expected = DedicatedPlan { pool: PoolName::new("b"), replicas: 3 };
    assert_eq!(plan.dedicated[&ModelId::new("d/m")], expected);
    assert_eq!(plan.shared[&PoolName::new("a")], 1);
}

#[test]
fn a_new_model_never_drives_out_one_that_is_seated() {
    let world = snapshot(&[("cpu", pool(4, 1, "1"))], &[("d/z", model(4, 1, Placement::Shared, &[]))]);
    let (mut world, _) = settled(&world);
    world.models.insert(ModelId::new("d/a"), model(4, 1, Placement::Shared, &[]));
    let plan = plan(&world);
    assert!(matches!(plan.outcomes[&ModelId::new("d/z")], Outcome::Placed { .. }));
    assert!(matches!(plan.outcomes[&ModelId::new("d/a")], Outcome::Short { .. }));
}

#[test]
fn on_a_pool_that_allows_it_two_models_take_turns_in_the_one_replica() {
    let shared = Pool { overcommit: 2, ..pool(4, 1, "1") };
    let models = [("d/a", model(4, 1, Placement::Shared, &[])), ("d/b", model(4, 1, Placement::Shared, &[]))];
    let (world, settled) = settled(&snapshot(&[("cpu", shared)], &models));
    let replica = world.replicas.keys().next().unwrap();
    assert_eq!(settled.residency[replica], BTreeSet::from([ModelId::new("d/a"), ModelId::new("d/b")]));
    assert_eq!(settled.turns, BTreeSet::from([replica.clone()]));
    insta::assert_snapshot!(settled.outcomes[&ModelId::new("d/a")].to_string(), @"placed: 1 on pool cpu; takes turns with others there, and waits for a load in between");
    insta::assert_snapshot!(settled.outcomes[&ModelId::new("d/b")].to_string(), @"placed: 1 on pool cpu; takes turns with others there, and waits for a load in between; pool cpu: all of its 1 replicas are taken; raise the pool's limits.replicas");
    let mut third = world;
    third.models.insert(ModelId::new("d/c"), model(4, 1, Placement::Shared, &[]));
    assert!(matches!(plan(&third).outcomes[&ModelId::new("d/c")], Outcome::Short { .. }), "twice the memory, not more");
}

#[test]
fn a_model_that_took_turns_gets_a_seat_of_its_own_once_there_is_one() {
    let shared = Pool { overcommit: 2, ..pool(4, 1, "1") };
    let models = [("d/a", model(4, 1, Placement::Shared, &[])), ("d/b", model(4, 1, Placement::Shared, &[]))];
    let (mut world, _) = settled(&snapshot(&[("cpu", shared)], &models));
    world.pools.insert(PoolName::new("cpu"), Pool { overcommit: 2, ..pool(4, 2, "1") });
    let (_, plan) = settled(&world);
    assert!(plan.turns.is_empty());
    assert!(plan.outcomes.values().all(|outcome| matches!(outcome, Outcome::Placed { .. })));
}

#[test]
fn an_outdated_replica_serves_on_while_a_current_one_is_seated() {
    let world = snapshot(&[("cpu", pool(4, 1, "1"))], &[("d/m", model(1, 1, Placement::Shared, &[]))]);
    let (mut world, _) = settled(&world);
    let old = world.replicas.keys().next().unwrap().clone();
    world.replicas.get_mut(&old).unwrap().phase = ReplicaPhase::Outdated;
    let surge = Replica {
        pool: PoolName::new("cpu"),
        tenancy: Tenancy::Shared,
        phase: ReplicaPhase::Current,
        residents: BTreeMap::new(),
    };
    let new = ReplicaId::new("surge");
    world.replicas.insert(new.clone(), surge);
    let plan = plan(&world);
    let held = BTreeSet::from([ModelId::new("d/m")]);
    assert_eq!((&plan.residency[&old], &plan.residency[&new]), (&held, &held));
    assert_eq!(plan.shared[&PoolName::new("cpu")], 1);
}

#[test]
fn a_parked_model_gives_its_replicas_back() {
    let world = snapshot(&[("cpu", pool(4, 1, "1"))], &[("d/m", model(1, 1, Placement::Shared, &[]))]);
    let (mut world, _) = settled(&world);
    world.models.get_mut(&ModelId::new("d/m")).unwrap().replicas = 0;
    let plan = plan(&world);
    assert_eq!(plan.outcomes[&ModelId::new("d/m")], Outcome::Parked);
    assert_eq!(plan.shared[&PoolName::new("cpu")], 0);
}

/// A world with one model on pool `old`, which is then deleted while `new` exists.
fn leaving(placement: Placement, new: Pool) -> Snapshot {
    let world = snapshot(&[("old", pool(4, 2, "1"))], &[("d/m", model(1, 1, placement, &[]))]);
    let (mut world, _) = settled(&world);
    world.pools.get_mut(&PoolName::new("old")).unwrap().leaving = true;
    world.pools.insert(PoolName::new("new"), new);
    world
}

#[test]
fn a_pool_that_is_deleted_serves_until_its_models_are_ready_elsewhere() {
    let mut world = leaving(Placement::Shared, pool(4, 2, "9"));
    let (old, new) = (PoolName::new("old"), PoolName::new("new"));
    let first = plan(&world);
    assert_eq!((first.shared[&old], first.shared[&new]), (1, 1));
    let arrived = Replica {
        pool: new.clone(),
        tenancy: Tenancy::Shared,
        phase: ReplicaPhase::Current,
        residents: residents(&[ModelId::new("d/m")].into()),
    };
    world.replicas.insert(ReplicaId::new("arrived"), arrived);
    let last = plan(&world);
    assert_eq!((last.shared[&old], last.shared[&new]), (0, 1));
}

#[test]
fn a_pool_that_is_deleted_is_held_by_models_that_fit_nowhere_else() {
    for placement in [Placement::Shared, Placement::Dedicated] {
        let world = leaving(placement, pool(4, 0, "1"));
        let (_, plan) = settled(&world);
        let replicas: Vec<u32> = plan.report.pools.iter().map(|(_, replicas, _)| *replicas).collect();
        assert_eq!(replicas, [0, 1], "{placement:?}: the model stays on `old`");
    }
}

#[test]
fn a_dedicated_model_leaves_a_pool_that_is_deleted() {
    let world = leaving(Placement::Dedicated, pool(4, 2, "9"));
    assert_eq!(plan(&world).dedicated[&ModelId::new("d/m")].pool, PoolName::new("new"));
}

#[test]
fn spares_stay_while_the_limits_leave_room_and_are_the_first_to_take_a_model() {
    let spare = Pool { warm_spares: 1, ..pool(4, 2, "1") };
    let world = snapshot(&[("cpu", spare)], &[("d/a", model(4, 1, Placement::Shared, &[]))]);
    let (mut world, first) = settled(&world);
    let cpu = PoolName::new("cpu");
    assert_eq!((first.shared[&cpu], world.replicas.len()), (2, 2));
    let empty = first.residency.iter().find(|(_, held)| held.is_empty()).unwrap().0.clone();
    world.models.insert(ModelId::new("d/b"), model(4, 1, Placement::Shared, &[]));
    let next = plan(&world);
    assert_eq!(next.residency[&empty], [ModelId::new("d/b")].into());
    assert_eq!(next.shared[&cpu], 2, "the limit leaves no room for another spare");
}

#[test]
fn a_ceiling_of_dollars_an_hour_bounds_replicas_wherever_they_are() {
    for placement in [Placement::Shared, Placement::Dedicated] {
        let bounded = Model { max_per_hour: Some(MicroUsdPerHour::new(5_000_000)), ..model(4, 4, placement, &["a"]) };
        let (_, plan) = settled(&snapshot(&[("a", pool(4, 9, "2"))], &[("d/m", bounded)]));
        insta::allow_duplicates! {
            insta::assert_snapshot!(plan.outcomes[&ModelId::new("d/m")].to_string(), @"2 of 4 replicas placed; pool a: another replica for $2.00 an hour beside $4.00 would exceed the model's cost.maxUsdPerHour of $5.00; raise it, or lower replicas.min");
        }
    }
}

#[test]
fn a_model_leaves_a_pool_where_its_pictures_cost_too_much_and_does_not_try_it_again() {
    let bounded =
        Model { max_per_image: Some(MicroUsd::new(1_000)), ..model(4, 1, Placement::Shared, &["fast", "cheap"]) };
    let fast = Pool { relative_speed: Speed::from_decimal("2").unwrap(), ..pool(4, 2, "3.60") };
    let world = snapshot(&[("fast", fast), ("cheap", pool(4, 2, "0.36"))], &[("d/m", bounded)]);
    let (mut world, first) = settled(&world);
    let (fast, cheap) = (PoolName::new("fast"), PoolName::new("cheap"));
    assert_eq!((first.shared[&fast], first.shared[&cheap]), (1, 0), "nobody knows yet what a picture takes");
    let replica = world.replicas.values_mut().next().unwrap();
    replica.residents.values_mut().next().unwrap().step = Some(std::time::Duration::from_millis(100));
    let mut steps = std::mem::take(&mut world.steps);
    steps.learn(&world);
    world.steps = steps;
    let (world, moved) = settled(&world);
    assert_eq!((moved.shared[&fast], moved.shared[&cheap]), (0, 1));
    let mut steps = world.steps.clone();
    steps.learn(&world);
    assert_eq!(plan(&Snapshot { steps, ..world }).shared, moved.shared, "what was measured outlives the replica");
}

fn any_pool() -> impl Strategy<Value = Pool> {
    (1u64..10, 0u32..5, 1u32..5, any::<bool>(), 0u32..3).prop_map(|(gib, limit, dollars, leaving, warm_spares)| Pool {
        warm_spares,
        max_cost: (gib % 3 == 0).then(|| MicroUsdPerHour::new(6_000_000)),
        leaving,
        ..pool(gib, limit, &dollars.to_string())
    })
}

fn any_model() -> impl Strategy<Value = Model> {
    (1u64..6, 0u32..4, any::<bool>(), proptest::sample::subsequence(vec!["a", "b", "c", "gone"], 0..4), 0u8..8)
        .prop_map(|(gib, min, shared, pools, leaving)| Model {
            leaving: leaving == 0,
            max_per_hour: (leaving > 4).then(|| MicroUsdPerHour::new(u64::from(leaving) * 1_000_000)),
            ..model(gib, min, if shared { Placement::Shared } else { Placement::Dedicated }, &pools)
        })
}

fn any_world() -> impl Strategy<Value = Snapshot> {
    let pools = proptest::collection::btree_map(proptest::sample::select(vec!["a", "b", "c"]), any_pool(), 0..=3);
    let models = proptest::collection::btree_map("[a-f]", any_model(), 0..6);
    (pools, models).prop_map(|(pools, models)| Snapshot {
        pools: pools.into_iter().map(|(name, pool)| (PoolName::new(name), pool)).collect(),
        models: models.into_iter().map(|(name, model)| (ModelId::new(name), model)).collect(),
        ..Snapshot::default()
    })
}

fn check_capacity(world: &Snapshot, plan: &FleetPlan) -> Result<(), TestCaseError> {
    for (name, pool) in &world.pools {
        let dedicated: u32 = plan.dedicated.values().filter(|d| d.pool == *name).map(|d| d.replicas).sum();
        let replicas = plan.shared[name] + dedicated;
        prop_assert!(replicas <= pool.max_replicas, "{name}: {replicas} of {}", pool.max_replicas);
        prop_assert!(pool.max_cost.is_none_or(|limit| pool.price.times(replicas) <= limit));
    }
    for (id, held) in &plan.residency {
        let replica = &world.replicas[id];
        let needed: u64 = held.iter().map(|model| world.models[model].memory.0).sum();
        prop_assert!(needed <= world.pools[&replica.pool].memory.0, "{id} holds too much");
    }
    Ok(())
}

proptest! {
    #[test]
    fn planning_twice_changes_nothing(world in any_world()) {
        let (world, first) = settled(&world);
        let again = plan(&applied(&world, &first));
        prop_assert_eq!(&first.outcomes, &again.outcomes);
        prop_assert_eq!(first, again);
    }

    #[test]
    fn no_pool_ever_has_more_than_its_limits(world in any_world()) {
        check_capacity(&world, &plan(&world))?;
        let (world, plan) = settled(&world);
        check_capacity(&world, &plan)?;
    }

    #[test]
    fn what_was_planned_first_is_what_comes_to_be(world in any_world()) {
        let first = plan(&world);
        let (_, last) = settled(&world);
        prop_assert_eq!(first.outcomes, last.outcomes);
    }

    #[test]
    fn a_lowered_limit_is_kept(world in any_world(), limit in 0u32..3) {
        let (mut world, _) = settled(&world);
        for pool in world.pools.values_mut() {
            pool.max_replicas = pool.max_replicas.min(limit);
        }
        let (world, plan) = settled(&world);
        check_capacity(&world, &plan)?;
    }

    #[test]
    fn a_cheaper_world_is_never_dearer(world in any_world()) {
        let bill = |world: &Snapshot| {
            let (_, plan) = settled(world);
            plan.report.pools.iter().fold(MicroUsdPerHour::default(), |sum, (_, _, cost)| sum + *cost)
        };
        let before = bill(&world);
        let mut cheaper = world.clone();
        for pool in cheaper.pools.values_mut() {
            pool.max_cost = None;
        }
        // What is afforded only now costs more than what was not.
        for model in cheaper.models.values_mut() {
            model.max_per_hour = None;
        }
        let unlimited = bill(&cheaper);
        for pool in cheaper.pools.values_mut() {
            pool.price = MicroUsdPerHour::new(500_000);
        }
        let after = bill(&cheaper);
        prop_assert!(after <= unlimited, "{after} > {unlimited} (with limits {before})");
    }
}
