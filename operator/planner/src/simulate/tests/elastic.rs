//! A fleet that grows, shrinks and is hurt.

use super::*;

/// Four hours of a curve that rises from a little to a lot and falls again.
fn elastic(faults: Faults) -> Scenario {
    let points = vec![(0.0, 0.2), (3600.0, 0.2), (5400.0, 2.0), (9000.0, 2.0), (10_800.0, 0.2), (14_400.0, 0.2)];
    let grows = |name: &str, capacity, cents: &str| PoolSpec {
        name: name.into(),
        min: 0,
        max: 40,
        capacity,
        price: MicroUsdPerHour::from_dollars(cents).unwrap(),
        start: Span::from_secs(60.0),
        ..pool(0, 1.0)
    };
    let pools = vec![grows("on-demand", Capacity::OnDemand, "1.00"), grows("spot", Capacity::Spot, "0.35")];
    let curve = Curve { points, mean_rps: 0.15 };
    let arrivals = Arrivals { process: Process::Curve, rho: 1.0 };
    Scenario { pools, arrivals, curve, faults, ..reference(0.5, 1500) }
}

fn every_fault() -> Faults {
    let rates = Rates { loss: 1.0, reclaim: 2.0, slow: 2.0, torn_download: 2.0, ..Rates::default() };
    Faults { list: Vec::new(), rates, seed: 4 }
}

fn run_all(scenario: &Scenario) -> Vec<Outcome> {
    policies::ALL.iter().map(|(name, _)| run(scenario, name, 1)).collect()
}

#[test]
fn nothing_is_lost_under_any_policy_whatever_goes_wrong() {
    let grown = elastic(every_fault());
    let fixed = Scenario { faults: every_fault(), ..reference(0.4, 1500) };
    for name in ["easel", "knative", "hpa", "keda"] {
        let outcome = run(&grown, name, 1);
        assert!(outcome.faults > 5, "{name}: {}", outcome.faults);
        assert_eq!(outcome.lost, 0, "{name}");
    }
    for outcome in run_all(&fixed) {
        assert_eq!(outcome.lost, 0, "{}", outcome.policy);
    }
}

#[test]
fn a_reclaim_with_notice_interrupts_no_drawing_under_easel() {
    let rates = Rates { reclaim: 3.0, ..Rates::default() };
    let scenario = elastic(Faults { list: Vec::new(), rates, seed: 2 });
    let ours = run(&scenario, "easel", 1);
    assert!(ours.faults > 5 && ours.retried == 0, "{} reclaims, {} retried", ours.faults, ours.retried);
}

#[test]
fn a_lost_pod_costs_at_most_the_steps_since_the_last_kept_ones() {
    let hurt = Faults {
        list: vec![Fault { at: Moment::from_secs(6.0), replica: 0, kind: FaultKind::Loss }],
        ..Faults::default()
    };
    let one = |faults: Faults| Scenario { pools: vec![pool(2, 1.0)], faults, ..reference(0.1, 1) };
    let rows = [Row { arrival: Moment::ORIGIN, images: 1, ..rows(1).remove(0) }];
    let trace = |faults: Faults| {
        let mut scenario = one(faults);
        scenario.arrivals.process = Process::Trace;
        scenario
    };
    let run = |scenario: &Scenario, policy: &str| {
        simulate(scenario, &requests(scenario, &rows, 1), &mut *policies::by_name(policy, 1).unwrap())
    };
    let (well, ours) = (run(&trace(Faults::default()), "easel"), run(&trace(hurt.clone()), "easel"));
    let theirs = run(&trace(hurt), "shortest-delay");
    assert_eq!((ours.retried, ours.lost, theirs.lost), (1, 0, 0));
    let more = |outcome: &Outcome| outcome.mean.less(well.mean).secs();
    // The other replica has to load what was lost: that is the same for both.
    let load = 22.0 + 4.4;
    assert!(more(&ours) <= load + 5.0 * 0.3 + 0.01, "{}", more(&ours));
    assert!(more(&theirs) > more(&ours));
}

#[test]
fn what_is_not_needed_is_not_paid_for_and_the_books_still_add_up() {
    let scenario = elastic(Faults::default());
    for outcome in ["easel", "knative", "hpa", "keda"].map(|name| run(&scenario, name, 1)) {
        let parts = outcome.drawing_cost.micros() + outcome.loading_cost.micros() + outcome.idle_cost.micros();
        let bill = outcome.cost.micros();
        assert!(parts.abs_diff(bill) * 1000 <= bill.max(1), "{}: {parts} of {bill}", outcome.policy);
        assert!(outcome.gpu_hours < 40.0, "{}: {}", outcome.policy, outcome.gpu_hours);
    }
}

#[test]
fn easel_serves_the_curve_with_fewer_hours_than_others_by_default() {
    let scenario = elastic(Faults::default());
    let ours = run(&scenario, "easel", 1);
    assert!(ours.slo_attainment > 0.9, "{}", ours.slo_attainment);
    for other in ["knative", "keda"] {
        let theirs = run(&scenario, other, 1);
        assert!(ours.gpu_hours < theirs.gpu_hours, "{other}: {} and {}", ours.gpu_hours, theirs.gpu_hours);
    }
}
