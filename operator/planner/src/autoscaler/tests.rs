use super::*;
use proptest::prelude::*;

fn pool(name: &str, cents: u64, capacity: Capacity, limits: (u32, u32)) -> Pool {
    Pool {
        name: PoolName::new(name),
        price: MicroUsdPerHour::new(cents * 10_000),
        capacity,
        speed: 1.0,
        min: limits.0,
        max: limits.1,
        max_cost: None,
        spares: 0,
        start: Span::from_secs(60.0),
    }
}

fn three() -> Vec<Pool> {
    vec![
        pool("on-demand", 100, Capacity::OnDemand, (0, 20)),
        pool("spot-a", 35, Capacity::Spot, (0, 20)),
        pool("spot-b", 38, Capacity::Spot, (0, 20)),
    ]
}

const AIM: Aim = Aim { misses: 0.05, load: Span::from_micros(22_000_000), survives: 0.5 };

fn at(seconds: f64) -> Moment {
    Moment::from_secs(seconds)
}

/// Work at a steady rate, in GPU-seconds a second, until a time.
fn steady(rate: f64, until: u32) -> Memory {
    let mut memory = Memory::default();
    for second in 0..until {
        memory.arrived(rate, at(f64::from(second)));
    }
    memory
}

fn replicas(pool: usize, count: usize) -> Vec<Observed> {
    let one = |number: usize| Observed { pool, leaving: false, busy: false, worth: 0.0, since: at(number as f64) };
    (0..count).map(one).collect()
}

fn decide(pools: &[Pool], replicas: &[Observed], memory: &Memory, now: f64, present: usize) -> (Decision, Memory) {
    autoscale(&Input { pools, replicas, aim: AIM, placeless: 0.0, present }, memory, at(now))
}

fn total(decision: &Decision) -> u32 {
    decision.desired.iter().sum()
}

#[test]
fn steady_work_gets_its_replicas_and_a_headroom() {
    let pools = [pool("p", 100, Capacity::OnDemand, (0, 50))];
    let (decision, _) = decide(&pools, &[], &steady(9.0, 600), 600.0, 9);
    // 9 + 1.645 × 9^¼ = 11.8
    assert_eq!(decision.desired, [12]);
    let said: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|reason| reason.starts_with("11.8")), "{said:?}");
    assert!(said.contains(&"pool p: from 0 to 12 replicas".to_owned()), "{said:?}");
}

#[test]
fn misses_raise_the_headroom_and_requests_in_time_lower_it() {
    let mut memory = Memory::default();
    let before = memory.headroom();
    memory.ended(false, 0.05);
    assert!(memory.headroom() > before);
    for _ in 0..19 {
        memory.ended(true, 0.05);
    }
    assert!((memory.headroom() - before).abs() < 1e-9, "one miss in twenty is what is allowed");
}

#[test]
fn nothing_asked_for_is_nothing_running_and_the_first_request_wakes_one() {
    let pools = three();
    let memory = steady(2.0, 60);
    let (_, memory) = decide(&pools, &replicas(0, 2), &memory, 60.0, 1);
    let (asleep, mut memory) = decide(&pools, &replicas(0, 2), &memory, 600.0, 0);
    assert_eq!(asleep.desired, [0, 0, 0]);
    assert_eq!(asleep.end, [1, 0], "the youngest first");
    memory.arrived(9.0, at(5000.0));
    let (awake, _) = decide(&pools, &[], &memory, 5000.0, 1);
    assert!(total(&awake) >= 1 && awake.reasons.contains(&Reason::Wake), "{awake:?}");
}

#[test]
fn what_was_needed_a_look_ago_stays() {
    let pools = [pool("p", 100, Capacity::OnDemand, (0, 50))];
    let mut memory = steady(9.0, 600);
    let many = decide(&pools, &[], &memory, 600.0, 9);
    memory = many.1;
    let (soon, memory) = decide(&pools, &replicas(0, 12), &memory, 615.0, 9);
    assert_eq!(soon.desired, many.0.desired);
    let (later, _) = decide(&pools, &replicas(0, 12), &memory, 900.0, 1);
    assert!(total(&later) < 12, "{later:?}");
}

#[test]
fn a_sudden_rise_is_met_at_once_and_nobody_goes_during_it() {
    let pools = [pool("p", 100, Capacity::OnDemand, (0, 80))];
    let mut memory = steady(2.0, 600);
    for second in 600..630 {
        memory.arrived(20.0, at(f64::from(second)));
    }
    let (decision, memory) = decide(&pools, &replicas(0, 4), &memory, 630.0, 40);
    assert!(total(&decision) >= 20, "{decision:?}");
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::Panic { .. })));
    let (after, _) = decide(&pools, &replicas(0, 30), &memory, 700.0, 1);
    assert!(total(&after) >= total(&decision), "{after:?}");
}

#[test]
fn spot_is_bought_first_but_the_loss_of_the_largest_spot_pool_leaves_half() {
    let (decision, _) = decide(&three(), &[], &steady(9.0, 600), 600.0, 9);
    let [on_demand, a, b] = decision.desired[..] else { panic!("{decision:?}") };
    assert!((1..=2).contains(&on_demand), "{decision:?}");
    assert!(2 * a.max(b) <= on_demand + a + b, "{decision:?}");
}

#[test]
fn who_is_reclaimed_is_replaced_before_it_goes() {
    let pools = three();
    let memory = steady(4.0, 600);
    let (_, memory) = decide(&pools, &[], &memory, 600.0, 4);
    let (wanted, _) = decide(&pools, &[], &memory, 601.0, 4);
    let mut fleet: Vec<Observed> = (0..3).flat_map(|pool| replicas(pool, wanted.desired[pool] as usize)).collect();
    let last = fleet.len() - 1;
    fleet[last].leaving = true;
    let (decision, _) = decide(&pools, &fleet, &memory, 601.0, 4);
    assert_eq!(decision.desired, wanted.desired);
    assert!(decision.end.is_empty(), "who is reclaimed goes by itself");
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::Replace { .. })));
}

#[test]
fn the_idle_then_the_least_useful_goes_first() {
    let pools = [pool("p", 100, Capacity::OnDemand, (0, 10))];
    let one = |busy, worth, since| Observed { pool: 0, leaving: false, busy, worth, since: at(since) };
    let fleet = [one(true, 0.0, 5.0), one(false, 9.0, 1.0), one(false, 2.0, 1.0), one(false, 2.0, 3.0)];
    let input = Input { pools: &pools, replicas: &fleet, aim: AIM, placeless: 0.0, present: 0 };
    assert_eq!(leave::leave(&input, &[0]), [3, 2, 1, 0]);
}

#[test]
fn limits_are_named_when_they_leave_work_without_a_place() {
    let mut pools = vec![pool("p", 100, Capacity::OnDemand, (0, 50))];
    pools[0].max_cost = Some(MicroUsdPerHour::new(3_000_000));
    let (decision, _) = decide(&pools, &[], &steady(9.0, 600), 600.0, 9);
    assert_eq!(decision.desired, [3]);
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::Short { .. })));
}

#[test]
fn the_third_morning_is_expected_before_it_comes() {
    let mut memory = Memory::default();
    let day = 86_400.0;
    let mut clock = 0.0;
    // Quiet nights and busy days, noon to midnight.
    while clock < 2.0 * day + 0.49 * day {
        let busy = clock % day >= 0.5 * day;
        memory.arrived(if busy { 600.0 } else { 60.0 }, at(clock));
        clock += 60.0;
    }
    let expected = |seconds: f64| memory.clone().forecast(at(clock), Span::from_secs(seconds)).unwrap();
    assert!(expected(60.0).rate < 5.0, "{:?}", expected(60.0));
    let noon = expected(1200.0);
    assert!(noon.rate > 6.0 && noon.upper >= noon.rate, "{noon:?}");
    assert_eq!(expected(1200.0), expected(1200.0));
}

fn any_pools() -> impl Strategy<Value = Vec<Pool>> {
    let one = (1_u64..400, any::<bool>(), 0_u32..3, 0_u32..12, prop::option::of(1_u64..2000), 0_u32..3, 0_usize..3);
    prop::collection::vec(one, 1..4).prop_map(|pools| {
        let pool = |(at, (cents, spot, min, more, budget, spares, speed)): (_, (_, _, _, _, Option<u64>, _, usize))| {
            let capacity = if spot { Capacity::Spot } else { Capacity::OnDemand };
            let max_cost = budget.map(|cents| MicroUsdPerHour::new(cents * 10_000));
            let speed = [0.5, 1.0, 2.0][speed];
            Pool { speed, max_cost, spares, ..pool(&format!("p{at}"), cents, capacity, (min, min + more)) }
        };
        pools.into_iter().enumerate().map(pool).collect()
    })
}

proptest! {
    #[test]
    fn limits_hold(pools in any_pools(), rate in 0.0..60.0, leaving in 0_usize..5) {
        let mut fleet = replicas(0, leaving);
        for replica in &mut fleet {
            replica.leaving = true;
        }
        let (decision, _) = decide(&pools, &fleet, &steady(rate, 400), 400.0, 1);
        for (at, (pool, n)) in pools.iter().zip(&decision.desired).enumerate() {
            let there = if at == 0 { u32::try_from(leaving).unwrap() } else { 0 };
            prop_assert!(*n == 0 || n + there <= pool.max, "{:?}", decision);
            let bill = pool.price.times(*n);
            prop_assert!(pool.max_cost.is_none_or(|most| bill <= most), "{:?}", decision);
        }
    }

    #[test]
    fn planning_twice_changes_nothing(pools in any_pools(), rate in 0.0..60.0, there in 0_usize..20) {
        let fleet = replicas(0, there);
        let (first, memory) = decide(&pools, &fleet, &steady(rate, 400), 400.0, 3);
        let (second, memory_after) = decide(&pools, &fleet, &memory, 400.0, 3);
        prop_assert_eq!(&first.desired, &second.desired);
        prop_assert_eq!(&first.end, &second.end);
        prop_assert_eq!(decide(&pools, &fleet, &memory_after, 400.0, 3).0, second);
    }

    #[test]
    fn a_cheaper_world_is_never_dearer(pools in any_pools(), need in 0.0..30.0, which in 0_usize..3, less in 1_u64..100) {
        // A limit in dollars buys more where prices fall, so it is left out.
        let pools: Vec<Pool> = pools.into_iter().map(|pool| Pool { max_cost: None, ..pool }).collect();
        let bill = |pools: &[Pool]| -> u64 {
            let counts = spread::spread(pools, 0.5, need);
            pools.iter().zip(counts).map(|(pool, n)| pool.price.times(n).micros()).sum()
        };
        let mut cheaper = pools.clone();
        let at = which % pools.len();
        cheaper[at].price = MicroUsdPerHour::new(pools[at].price.micros() * less / 100);
        prop_assert!(bill(&cheaper) <= bill(&pools));
    }

    #[test]
    fn more_demand_never_gives_fewer_replicas(pools in any_pools(), rate in 0.0..40.0, more in 0.0..20.0) {
        let pools: Vec<Pool> = pools.into_iter().map(|pool| Pool { speed: 1.0, max_cost: None, ..pool }).collect();
        let (less, _) = decide(&pools, &[], &steady(rate, 400), 400.0, 1);
        let (more, _) = decide(&pools, &[], &steady(rate + more, 400), 400.0, 1);
        prop_assert!(total(&less) <= total(&more), "{:?} {:?}", less, more);
    }
}
