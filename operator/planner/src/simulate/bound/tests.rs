use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::demand::ModelIx;
use crate::simulate::tests::{pool, reference, rows};
use crate::simulate::{Outcome, policies, requests, simulate};
use crate::time::Moment;

fn count(_: &Request) -> f64 {
    1.0
}

fn request(arrival: f64, model: u32, work: f64, adapters: f64, deadline: f64) -> Request {
    Request {
        arrival: Moment::from_secs(arrival),
        model: ModelIx(model),
        images: 1,
        steps: 30,
        work: Span::from_secs(work),
        adapters: Span::from_secs(adapters),
        deadline: Moment::from_secs(deadline),
    }
}

/// A few requests that get into each other's way, and a fleet of one or two replicas.
fn crowded(seed: u64, most: u32) -> (Scenario, Load) {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut scenario = reference(0.8, most as usize);
    scenario.pools = vec![pool(1, [0.5, 1.0, 2.0][random.random_range(0..3)])];
    if random.random::<bool>() {
        scenario.pools.push(pool(1, [0.5, 1.0, 2.0][random.random_range(0..3)]));
    }
    scenario.load_from_store = Span::from_secs(random.random_range(0..4).into());
    let mut one = || {
        let (arrival, work) = (random.random::<f64>() * 12.0, 1.0 + random.random::<f64>() * 6.0);
        let adapters = f64::from(random.random_range(0..2)) * 2.0;
        request(
            arrival,
            random.random_range(0..3),
            work,
            adapters,
            arrival + work * (0.4 + 2.0 * random.random::<f64>()),
        )
    };
    let mut requests: Vec<Request> = (0..most).map(|_| one()).collect();
    requests.sort_by_key(|request| request.arrival);
    (scenario, Load { requests, models: vec!["a".into(), "b".into(), "c".into()] })
}

/// The most requests in time when every order on every replica is tried, one whole request after the other.
fn best(scenario: &Scenario, load: &Load, machines: &[(f64, f64, u32)], left: &[usize]) -> usize {
    let mut most = 0;
    for (place, task) in left.iter().enumerate() {
        let rest: Vec<usize> = [&left[..place], &left[place + 1..]].concat();
        let request = &load.requests[*task];
        for (at, (free, speed, held)) in machines.iter().enumerate() {
            let switch = if *held == request.model.0 { 0.0 } else { scenario.load_from_store.secs() };
            // Perfect knowledge may load before the request arrives, but draws after.
            let ready = (free + switch).max(request.arrival.secs());
            let end = ready + request.adapters.secs() + request.work.secs() / speed;
            if end <= request.deadline.secs() {
                let mut next = machines.to_vec();
                next[at] = (end, *speed, request.model.0);
                most = most.max(1 + best(scenario, load, &next, &rest));
            }
        }
    }
    most
}

#[test]
fn trying_every_order_never_beats_the_bound() {
    let mut met = 0;
    for seed in 0..300 {
        let (scenario, load) = crowded(seed, 4 + (seed % 2) as u32);
        let machines: Vec<(f64, f64, u32)> =
            scenario.pools.iter().enumerate().map(|(at, pool)| (0.0, pool.speed, at as u32)).collect();
        let all: Vec<usize> = (0..load.requests.len()).collect();
        let found = best(&scenario, &load, &machines, &all);
        let bound = bound(&scenario, &load, count) * load.requests.len() as f64;
        assert!(found as f64 <= bound + 1e-6, "seed {seed}: {found} and the bound is {bound}");
        met += u32::from(bound < found as f64 + 1.0);
    }
    assert!(met > 100, "rounded down it is the optimum in {met} of 300 cases only");
}

#[test]
fn no_policy_beats_the_bound_however_requests_are_counted() {
    let check = |scenario: &Scenario, load: &Load, what: &str| {
        let counted = bound(scenario, load, count);
        let weighted = bound(scenario, load, |request| request.work.secs());
        for (name, _) in policies::ALL {
            let outcome: Outcome = simulate(scenario, load, &mut *policies::by_name(name, 1).unwrap());
            assert!(outcome.slo_attainment <= counted + 1e-9, "{name}, {what}: {counted}");
            assert!(outcome.weighted_attainment <= weighted + 1e-9, "{name}, {what}, weighted: {weighted}");
        }
    };
    for seed in 0..60 {
        let (scenario, load) = crowded(seed, 12);
        check(&scenario, &load, &format!("seed {seed}"));
    }
    for rho in [0.6, 1.2, 2.0] {
        let scenario = reference(rho, 600);
        check(&scenario, &requests(&scenario, &rows(600), 1), &format!("rho {rho}"));
    }
}

#[test]
fn a_fleet_with_twice_the_work_draws_half_of_it_and_an_idle_one_all() {
    let mut scenario = reference(0.5, 100);
    scenario.pools = vec![pool(1, 1.0)];
    let alike = |count: u32| Load {
        requests: (0..count).map(|_| request(0.0, 0, 10.0, 0.0, 99.9)).collect(),
        models: vec!["a".into()],
    };
    assert!((bound(&scenario, &alike(20), count) - 0.5).abs() < 1e-6);
    assert!((bound(&scenario, &alike(10), count) - 1.0).abs() < 1e-6);
}

#[test]
fn short_requests_are_counted_before_long_ones() {
    let mut scenario = reference(0.5, 100);
    scenario.pools = vec![pool(1, 1.0)];
    let mut all: Vec<Request> = (0..5).map(|_| request(0.0, 0, 10.0, 0.0, 49.9)).collect();
    all.extend((0..25).map(|_| request(0.0, 0, 1.0, 0.0, 49.9)));
    let load = Load { requests: all, models: vec!["a".into()] };
    // 25 short ones take 25 s, and of the long ones two and a half fit into the rest.
    assert!((bound(&scenario, &load, count) * 30.0 - 27.5).abs() < 0.1);
}

#[test]
fn what_is_late_alone_on_an_idle_fleet_counts_nothing() {
    let mut scenario = reference(0.5, 100);
    scenario.pools = vec![pool(1, 1.0)];
    let load = Load { requests: vec![request(0.0, 0, 10.0, 3.0, 12.0)], models: vec!["a".into()] };
    assert!(bound(&scenario, &load, count).abs() < 1e-9);
}
