use super::*;
use crate::snapshot::Capacity;
use crate::units::MicroUsdPerHour;

pub(super) fn pool(replicas: u32, speed: f64) -> PoolSpec {
    PoolSpec {
        name: format!("speed-{speed}"),
        min: replicas,
        max: replicas,
        speed,
        price: MicroUsdPerHour::from_dollars("3.60").unwrap(),
        capacity: Capacity::OnDemand,
        resident_slots: 1,
        host_slots: 0,
        start: Span::ZERO,
    }
}

/// The reference scenario of the project's aims, scaled to a number of requests.
pub(super) fn reference(rho: f64, requests: usize) -> Scenario {
    Scenario {
        pools: vec![pool(4, 2.0), pool(8, 1.0), pool(4, 0.5)],
        execution: Execution { seconds_at_30_steps: 9.0, first_image_share: 0.25 },
        load_from_store: Span::from_secs(22.0),
        load_from_host: Span::from_secs(3.0),
        load_adapter: Span::from_secs(4.4),
        slo: Slo { factor: 3.0, slack: Span::from_secs(5.0) },
        arrivals: Arrivals { process: Process::Poisson, rho },
        curve: Curve::default(),
        requests,
        faults: Faults::default(),
    }
}

/// People in sessions over a few models, without any trace: the shape that is published of one.
pub(super) fn rows(requests: u32) -> Vec<Row> {
    let row = |at: u32| {
        let session = at / 4;
        let popular = session.wrapping_mul(2_654_435_761) >> 16;
        let model = if popular % 10 < 7 { popular % 5 } else { 5 + popular % 40 };
        Row {
            arrival: Moment::from_secs(f64::from(at)),
            model: format!("m{model:02}"),
            user: format!("u{session}"),
            loras: u32::from(popular.is_multiple_of(6)),
            images: [1, 1, 1, 4, 1, 8, 1, 2][(at % 8) as usize],
            steps: 30,
        }
    };
    (0..requests).map(row).collect()
}

fn run(scenario: &Scenario, policy: &str, seed: u64) -> Outcome {
    let load = requests(scenario, &rows(2000), seed);
    simulate(scenario, &load, &mut *policies::by_name(policy, seed).unwrap())
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_another_one_does_not() {
    let scenario = reference(0.6, 500);
    assert_eq!(run(&scenario, "easel", 1), run(&scenario, "easel", 1));
    assert_ne!(run(&scenario, "easel", 1).p50, run(&scenario, "easel", 2).p50);
}

#[test]
fn every_request_ends_drawn_or_refused_under_every_policy() {
    for (name, _) in policies::ALL {
        for rho in [0.3, 0.9] {
            let outcome = run(&reference(rho, 1000), name, 3);
            assert_eq!(outcome.lost, 0, "{name} at {rho}");
            let in_slo = (outcome.slo_attainment * 1000.0).round() as u64;
            assert_eq!(in_slo + outcome.rejected + outcome.late, 1000, "{name} at {rho}");
        }
    }
}

#[test]
fn money_adds_up_to_the_bill_within_a_thousandth() {
    for (name, _) in policies::ALL {
        let outcome = run(&reference(0.6, 500), name, 1);
        let parts = outcome.drawing_cost.micros() + outcome.loading_cost.micros() + outcome.idle_cost.micros();
        let bill = outcome.cost.micros();
        assert!(parts.abs_diff(bill) * 1000 <= bill, "{name}: {parts} of {bill}");
    }
}

#[test]
fn work_that_is_put_aside_is_done_once_but_for_a_step() {
    let outcome = run(&reference(0.8, 1000), "easel", 1);
    assert!(outcome.put_aside > 0);
    assert_eq!(outcome.late, 0, "who has a place in a line is in time when nothing is slower than was thought");
}

#[test]
fn easel_beats_the_ten_line_policy_wherever_there_is_something_to_win() {
    for (rho, least) in [(0.5, 0.0), (0.7, 0.03), (0.9, 0.05)] {
        let scenario = reference(rho, 2000);
        let (ours, theirs) = (run(&scenario, "easel", 1), run(&scenario, "cheapest-feasible", 1));
        let won = ours.slo_attainment - theirs.slo_attainment;
        assert!(won >= least, "at {rho}: {} and {}", ours.slo_attainment, theirs.slo_attainment);
    }
}

#[test]
fn more_replicas_lower_attainment_by_no_more_than_noise() {
    let scenario = reference(0.8, 1500);
    let load = requests(&scenario, &rows(2000), 1);
    let larger = Scenario { pools: vec![pool(4, 2.0), pool(10, 1.0), pool(4, 0.5)], ..scenario.clone() };
    let attain =
        |scenario: &Scenario| simulate(scenario, &load, &mut *policies::by_name("easel", 1).unwrap()).slo_attainment;
    assert!(attain(&larger) > attain(&scenario) - 0.005);
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused_by_its_field() {
    let refused = |change: fn(&mut Scenario)| {
        let mut scenario = reference(0.5, 10);
        change(&mut scenario);
        scenario.check().unwrap_err().to_string()
    };
    assert_eq!(refused(|s| s.pools.clear()), "there is no pool; list at least one under pools");
    assert!(refused(|s| s.pools[1].speed = -1.0).starts_with("pools[1].speed is -1;"));
    assert!(refused(|s| s.pools[0].resident_slots = 0).starts_with("pools[0].resident_slots is 0;"));
    assert!(refused(|s| s.execution.first_image_share = 2.0).contains("first_image_share is 2;"));
    assert!(refused(|s| s.arrivals.rho = f64::NAN).starts_with("arrivals.rho is NaN;"));
}

mod elastic;
