use super::*;
use crate::demand::Demand;
use proptest::prelude::*;

const LOADS: Loads = Loads { from_store: Span::from_micros(22_000_000), from_host: Span::from_micros(3_000_000) };

fn job(model: u32, work: f64, deadline: f64) -> Job {
    Job {
        model: ModelIx(model),
        work: Span::from_secs(work),
        adapters: Span::ZERO,
        deadline: Moment::from_secs(deadline),
        warm: None,
    }
}

fn replica(speed: f64, model: u32) -> Replica {
    let mut held = Held::new(1, 0);
    held.bring(ModelIx(model), &Worth::default());
    Replica { speed, busy: Busy::Idle, held, closed: false }
}

fn dispatch(board: &mut Board, replicas: &[Replica], now: f64) -> Vec<Order> {
    let demand = Demand::default();
    let now = Moment::from_secs(now);
    let worth = Worth::at(now, &demand, replicas, LOADS);
    board.dispatch(&View { now, replicas, loads: LOADS }, &worth)
}

fn turn(replica: u32, job: JobIx) -> Order {
    Order::Turn { replica: ReplicaIx(replica), job }
}

#[test]
fn a_request_goes_where_its_model_is() {
    let mut board = Board::default();
    let ix = board.add(job(7, 9.0, 60.0));
    assert_eq!(dispatch(&mut board, &[replica(1.0, 1), replica(1.0, 7), replica(2.0, 2)], 0.0), [turn(1, ix)]);
}

#[test]
fn a_request_waits_for_a_busy_replica_rather_than_load_elsewhere_when_that_is_in_time() {
    let mut board = Board::default();
    let first = board.add(job(1, 9.0, 60.0));
    let mut replicas = [replica(1.0, 1), replica(1.0, 2)];
    dispatch(&mut board, &replicas, 0.0);
    replicas[0].busy = Busy::Drawing { job: first, since: Moment::ORIGIN };
    let second = board.add(job(1, 9.0, 60.0));
    assert_eq!(dispatch(&mut board, &replicas, 0.0), []);
    assert_eq!(board.line(ReplicaIx(0)), [first, second]);
}

#[test]
fn a_tighter_deadline_puts_a_long_job_aside_that_can_still_be_in_time() {
    let mut board = Board::default();
    let long = board.add(job(1, 56.0, 173.0));
    let mut replicas = [replica(1.0, 1)];
    dispatch(&mut board, &replicas, 0.0);
    replicas[0].busy = Busy::Drawing { job: long, since: Moment::ORIGIN };
    let short = board.add(job(1, 9.0, 42.0));
    assert_eq!(dispatch(&mut board, &replicas, 10.0), [turn(0, short)]);
    assert_eq!(board.line(ReplicaIx(0)), [short, long]);
}

#[test]
fn jobs_of_one_model_are_drawn_together_where_deadlines_allow() {
    let mut board = Board::default();
    let replicas = [replica(1.0, 1)];
    let one = board.add(job(1, 9.0, 200.0));
    let other = board.add(job(2, 9.0, 201.0));
    let two = board.add(job(1, 9.0, 202.0));
    assert_eq!(dispatch(&mut board, &replicas, 0.0).len(), 1);
    let line = board.line(ReplicaIx(0));
    assert_eq!(line[2], other, "{line:?} should draw {one:?} and {two:?} before the load");
}

#[test]
fn what_can_not_be_in_time_anywhere_is_shed_and_what_still_may_is_kept() {
    let mut board = Board::default();
    let replicas = [replica(1.0, 1)];
    let hopeless = board.add(job(1, 9.0, 5.0));
    let possible = board.add(job(1, 9.0, 10.0));
    let mut orders = dispatch(&mut board, &replicas, 0.0);
    orders.sort_by_key(|order| matches!(order, Order::Turn { .. }));
    assert_eq!(orders, [Order::Shed { job: hopeless }, turn(0, possible)]);
}

#[test]
fn under_overload_the_request_that_costs_the_fleet_most_makes_room() {
    let mut board = Board::default();
    let mut replicas = [replica(1.0, 1)];
    replicas[0].busy = Busy::Loading { until: Moment::from_secs(20.0), job: None };
    let large = board.add(job(1, 56.0, 77.0));
    dispatch(&mut board, &replicas, 0.0);
    let small = board.add(job(1, 9.0, 32.0));
    dispatch(&mut board, &replicas, 0.0);
    assert_eq!(board.line(ReplicaIx(0)), [small]);
    assert!(board.job(large).is_some(), "it may still find a place");
}

#[test]
fn a_closed_replica_gives_its_jobs_back() {
    let mut board = Board::default();
    let ix = board.add(job(1, 9.0, 60.0));
    let mut replicas = [replica(1.0, 1), replica(1.0, 1)];
    assert_eq!(dispatch(&mut board, &replicas, 0.0), [turn(0, ix)]);
    replicas[0].closed = true;
    board.close(ReplicaIx(0));
    assert_eq!(dispatch(&mut board, &replicas, 1.0), [turn(1, ix)]);
}

#[test]
fn an_idle_replica_loads_what_is_asked_for_and_nobody_holds() {
    let mut demand = Demand::default();
    let now = Moment::from_secs(100.0);
    for _ in 0..4 {
        demand.note(ModelIx(3), Span::from_secs(9.0), now);
    }
    let replicas = [replica(1.0, 0), replica(1.0, 1)];
    let worth = Worth::at(now, &demand, &replicas, LOADS);
    let view = View { now, replicas: &replicas, loads: LOADS };
    let found = ahead(&Board::default(), &view, &worth);
    assert_eq!(found.map(|ahead| ahead.model), Some(ModelIx(3)));
    let busy = [replica(1.0, 0)];
    let view = View { replicas: &busy, ..view };
    assert_eq!(ahead(&Board::default(), &view, &worth), None, "the last idle replica stays free");
}

#[test]
fn a_load_ahead_of_demand_is_waited_for_by_its_own_model_and_gives_way_to_another() {
    let mut replicas = [replica(2.0, 1)];
    replicas[0].busy = Busy::Loading { until: Moment::from_secs(20.0), job: None };
    let mut board = Board::default();
    board.add(job(1, 9.0, 32.0));
    assert_eq!(dispatch(&mut board, &replicas, 0.0), []);
    let mut board = Board::default();
    let other = board.add(job(2, 9.0, 32.0));
    assert_eq!(dispatch(&mut board, &replicas, 0.0), [turn(0, other)]);
}

prop_compose! {
    fn jobs()(jobs in prop::collection::vec((0u32..4, 1.0..60.0f64, 5.0..200.0f64), 0..20)) -> Vec<Job> {
        jobs.into_iter().map(|(model, work, deadline)| job(model, work, deadline)).collect()
    }
}

prop_compose! {
    fn fleet()(fleet in prop::collection::vec((prop::sample::select(vec![0.5, 1.0, 2.0]), 0u32..4), 1..6)) -> Vec<Replica> {
        fleet.into_iter().map(|(speed, model)| replica(speed, model)).collect()
    }
}

proptest! {
    #[test]
    fn no_job_is_lost_or_stands_in_two_lines(jobs in jobs(), fleet in fleet()) {
        let mut board = Board::default();
        for job in &jobs {
            board.add(*job);
        }
        dispatch(&mut board, &fleet, 0.0);
        let mut seen: Vec<JobIx> = board.lines.iter().flatten().chain(&board.placeless).copied().collect();
        seen.sort_unstable();
        let all: Vec<JobIx> = (0..u32::try_from(jobs.len()).unwrap()).map(JobIx).collect();
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn everybody_in_a_line_is_in_time(jobs in jobs(), fleet in fleet()) {
        let mut board = Board::default();
        for job in jobs {
            board.add(job);
        }
        dispatch(&mut board, &fleet, 0.0);
        let demand = Demand::default();
        let worth = Worth::at(Moment::ORIGIN, &demand, &fleet, LOADS);
        let view = View { now: Moment::ORIGIN, replicas: &fleet, loads: LOADS };
        for at in 0..fleet.len() {
            prop_assert!(line::cost(&board, &view, &worth, at, None).is_some(), "{:?}", board.lines[at]);
        }
    }

    #[test]
    fn what_is_started_is_started_once(jobs in jobs(), fleet in fleet()) {
        let mut board = Board::default();
        for job in jobs {
            board.add(job);
        }
        let mut fleet = fleet;
        for order in dispatch(&mut board, &fleet, 0.0) {
            if let Order::Turn { replica, job } = order {
                let at = replica.0 as usize;
                let until = Moment::ORIGIN + LOADS.of(&fleet[at].held, board.job(job).unwrap().model);
                fleet[at].held.bring(board.job(job).unwrap().model, &Worth::default());
                fleet[at].busy = if until == Moment::ORIGIN {
                    Busy::Drawing { job, since: Moment::ORIGIN }
                } else {
                    Busy::Loading { until, job: Some(job) }
                };
            }
        }
        let again = dispatch(&mut board, &fleet, 0.0);
        let turns = again.iter().filter(|order| matches!(order, Order::Turn { .. })).count();
        prop_assert_eq!(turns, 0, "planning twice changes nothing: {:?}", again);
    }
}
