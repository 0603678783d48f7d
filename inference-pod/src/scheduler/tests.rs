//! What the scheduler promises, as examples; `play` has it as properties over random histories.

mod play;
mod properties;

use std::time::Duration;

use easel_api::{Priority, Tenant};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(side: u32) -> BatchKey {
    BatchKey { input_channels: 4, height: side, width: side, text_length: 0, rows: 2 }
}

fn limits() -> Limits {
    Limits { max_batch: 4, max_running: 1000, max_waiting: 1000, patience: 30 * SECOND }
}

fn scheduler(limits: Limits) -> Scheduler {
    Scheduler::new(limits, MemoryProfile::new(0))
}

fn request(id: u64, side: u32, steps: u32) -> NewRequest {
    NewRequest {
        id: RequestId(id),
        tenant: Tenant::default(),
        class: Priority::Normal,
        pipeline: PipelineId(0),
        key: key(side),
        jobs: 1,
        taken: Vec::new(),
        steps,
        deadline: None,
    }
}

fn of(tenant: &str, request: &NewRequest) -> NewRequest {
    NewRequest { tenant: Tenant::new(tenant), ..request.clone() }
}

fn admit(scheduler: &mut Scheduler, request: &NewRequest, now: Instant) -> JobId {
    scheduler.admit(request, now).unwrap()[0]
}

/// The leaders of the next calls, each call stepped.
fn leaders(scheduler: &mut Scheduler, calls: usize, now: Instant) -> Vec<JobId> {
    let call = |_| {
        let batch = scheduler.next_batch(now).expect("something is left");
        scheduler.stepped(&batch.jobs);
        batch.jobs[0]
    };
    (0..calls).map(call).collect()
}

#[test]
fn a_job_that_was_begun_elsewhere_takes_the_steps_that_are_left() {
    let (mut scheduler, now) = (scheduler(limits()), Instant::now());
    let jobs = scheduler.admit(&NewRequest { jobs: 2, taken: vec![3], ..request(1, 8, 5) }, now).unwrap();
    assert_eq!(scheduler.steps_left(RequestId(1)), 5);
    assert_eq!((scheduler.stepped(&jobs), scheduler.stepped(&jobs)), (vec![], vec![jobs[0]]));
    let spoilt = admit(&mut scheduler, &NewRequest { taken: vec![3], ..request(2, 8, 5) }, now);
    assert_eq!(scheduler.steps_left(RequestId(2)), 2);
    scheduler.begins_anew(spoilt, 5);
    assert_eq!(scheduler.steps_left(RequestId(2)), 5);
}

#[test]
fn a_near_deadline_goes_first_and_the_rest_in_order_of_arrival() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let first = admit(&mut scheduler, &request(1, 8, 1), now);
    let second = admit(&mut scheduler, &request(2, 16, 1), now);
    let urgent = NewRequest { deadline: Some(now + SECOND), ..request(3, 32, 1) };
    let urgent = admit(&mut scheduler, &urgent, now);
    assert_eq!(leaders(&mut scheduler, 3, now), [urgent, first, second]);
}

#[test]
fn a_deadline_does_not_go_before_what_has_waited_longer_than_the_patience() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let old = scheduler.admit(&request(1, 8, 1), now).unwrap();
    let late = now + 31 * SECOND;
    let urgent = NewRequest { deadline: Some(late + Duration::from_millis(1)), ..request(2, 16, 1) };
    scheduler.admit(&urgent, late).unwrap();
    assert_eq!(scheduler.next_batch(late).unwrap().jobs, old);
}

#[test]
fn a_higher_class_goes_before_a_nearer_deadline_until_the_lower_one_is_of_age() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let low = NewRequest { class: Priority::Low, deadline: Some(now + SECOND), ..request(1, 8, 9) };
    let low = admit(&mut scheduler, &low, now);
    let normal = admit(&mut scheduler, &request(2, 16, 9), now);
    let high = admit(&mut scheduler, &NewRequest { class: Priority::High, ..request(3, 32, 1) }, now);
    assert_eq!(leaders(&mut scheduler, 3, now), [high, normal, normal]);
    let later = now + 30 * SECOND;
    admit(&mut scheduler, &NewRequest { class: Priority::High, ..request(4, 32, 1) }, later);
    assert_eq!(leaders(&mut scheduler, 1, later), [low]);
}

#[test]
fn a_tenant_with_a_backlog_gives_way_to_one_that_comes_later_whatever_the_deadlines_say() {
    let now = Instant::now();
    let mut scheduler = scheduler(Limits { max_batch: 1, ..limits() });
    let greedy = |id| NewRequest { deadline: Some(now + SECOND), ..of("greedy", &request(id, 8, 5)) };
    let flood: Vec<_> = (0..10).map(|id| admit(&mut scheduler, &greedy(id), now)).collect();
    assert_eq!(leaders(&mut scheduler, 2, now), [flood[0], flood[0]]);
    let modest = admit(&mut scheduler, &of("modest", &request(10, 16, 3)), now);
    let led = leaders(&mut scheduler, 7, now);
    // What had begun goes on; then the other's turn has come.
    assert_eq!(led, [flood[0], flood[0], flood[0], modest, modest, modest, flood[1]]);
}

#[test]
fn a_flood_of_the_highest_class_with_the_nearest_deadlines_delays_a_job_of_age_by_a_bounded_number_of_calls() {
    let start = Instant::now();
    let mut scheduler = scheduler(Limits { max_running: 2, ..limits() });
    let low = admit(&mut scheduler, &of("b", &NewRequest { class: Priority::Low, ..request(0, 16, 5) }), start);
    let flood = |id, now| NewRequest { class: Priority::High, deadline: Some(now), ..of("a", &request(id, 8, 5)) };
    let passed_over = |second: &u64| {
        let now = start + SECOND * *second as u32;
        admit(&mut scheduler, &flood(*second + 1, now), now);
        leaders(&mut scheduler, 1, now) != [low]
    };
    let calls = (0..1000).take_while(passed_over).count();
    // B is (T−1)·3S with S = 5 and T = 2; and the job that leads before has to wait for a place, as it has itself.
    assert!((30..=30 + 15 + 4 * 10).contains(&calls), "{calls} calls");
}

#[test]
fn a_tighter_deadline_puts_a_running_job_aside_which_goes_on_afterwards_from_where_it_was() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let long = admit(&mut scheduler, &request(1, 8, 4), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [long]);
    let urgent = NewRequest { deadline: Some(now + SECOND), ..request(2, 16, 2) };
    let urgent = admit(&mut scheduler, &urgent, now);
    let batch = scheduler.next_batch(now).unwrap();
    assert_eq!((&batch.jobs, &batch.starting), (&vec![urgent], &vec![urgent]));
    assert_eq!(scheduler.running(), 2, "what is put aside keeps its latents");
    scheduler.stepped(&batch.jobs);
    assert_eq!(leaders(&mut scheduler, 4, now), [urgent, long, long, long]);
    assert!(scheduler.is_idle());
}

#[test]
fn no_more_jobs_are_put_aside_than_may_run() {
    let now = Instant::now();
    let mut scheduler = scheduler(Limits { max_running: 2, ..limits() });
    let urgent = |id: u64, side| NewRequest { deadline: Some(now + SECOND * (9 - id as u32)), ..request(id, side, 9) };
    let first = admit(&mut scheduler, &urgent(1, 8), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [first]);
    let second = admit(&mut scheduler, &urgent(2, 16), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [second]);
    let third = admit(&mut scheduler, &urgent(3, 32), now);
    // It is the most urgent, and waits until one of the two is drawn.
    assert_eq!(leaders(&mut scheduler, 8, now), [second; 8]);
    assert_eq!(leaders(&mut scheduler, 1, now), [third]);
}

#[test]
fn a_job_joins_a_running_batch_between_steps_and_leaves_when_cancelled() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let a = admit(&mut scheduler, &request(1, 8, 3), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [a]);
    let b = admit(&mut scheduler, &request(2, 8, 3), now);
    let batch = scheduler.next_batch(now).unwrap();
    assert_eq!((batch.jobs, batch.starting), (vec![a, b], vec![b]));
    assert_eq!(scheduler.cancel(RequestId(1)), Cancelled { jobs: vec![a], steps: 1 });
    assert_eq!(scheduler.next_batch(now).unwrap().jobs, [b]);
    assert_eq!((scheduler.waiting(), scheduler.running()), (0, 1));
}

#[test]
fn a_full_queue_refuses_with_the_model_calls_that_are_left() {
    let now = Instant::now();
    let mut scheduler = scheduler(Limits { max_waiting: 2, ..limits() });
    let two = NewRequest { jobs: 2, ..request(1, 8, 10) };
    scheduler.admit(&two, now).unwrap();
    let full = Unadmitted::QueueFull { waiting: 2, calls_left: 10 };
    assert_eq!(scheduler.admit(&request(2, 8, 1), now), Err(full));
}

#[test]
fn a_request_larger_than_the_bound_is_taken_by_an_empty_queue() {
    let mut scheduler = scheduler(Limits { max_waiting: 2, ..limits() });
    let ten = NewRequest { jobs: 10, ..request(1, 8, 1) };
    assert_eq!(scheduler.admit(&ten, Instant::now()).unwrap().len(), 10);
}

#[test]
fn a_passed_deadline_is_late_once_whatever_the_number_of_jobs() {
    let now = Instant::now();
    let mut scheduler = scheduler(limits());
    let doomed = NewRequest { jobs: 3, deadline: Some(now + SECOND), ..request(1, 8, 9) };
    scheduler.admit(&doomed, now).unwrap();
    assert!(scheduler.late(now).is_empty());
    assert_eq!(scheduler.late(now + SECOND), [RequestId(1)].into());
    assert_eq!(scheduler.next_deadline(), Some(now + SECOND));
}

/// With a prior of 10 bytes a position and row, a job of 8×8 holds 4,096 bytes and takes 1,280 in a call.
fn within(free: u64) -> Scheduler {
    let mut scheduler = Scheduler::new(limits(), MemoryProfile::new(10));
    scheduler.set_free(Some(Free { now: free, at_best: free }));
    scheduler
}

#[test]
fn a_batch_is_as_large_as_memory_allows_and_the_rest_waits() {
    let now = Instant::now();
    let mut scheduler = within(2 * (4096 + 1280) + 100);
    let jobs = scheduler.admit(&NewRequest { jobs: 4, ..request(1, 8, 2) }, now).unwrap();
    let batch = scheduler.next_batch(now).unwrap();
    assert_eq!(batch.jobs, jobs[..2]);
    assert_eq!(scheduler.batch_bytes(&batch), 2 * (4096 + 1280));
    scheduler.stepped(&batch.jobs);
    let batch = scheduler.next_batch(now).unwrap();
    assert_eq!(scheduler.stepped(&batch.jobs), jobs[..2]);
    assert_eq!(scheduler.next_batch(now).unwrap().jobs, jobs[2..]);
}

#[test]
fn what_would_not_fit_alone_is_refused_and_what_does_is_admitted() {
    let now = Instant::now();
    let mut scheduler = within(4096 + 1280);
    scheduler.admit(&request(1, 8, 1), now).unwrap();
    let refused = Unadmitted::TooLarge { need_bytes: 4 * (4096 + 1280), free_bytes: 4096 + 1280 };
    assert_eq!(scheduler.admit(&request(2, 16, 1), now), Err(refused));
}

#[test]
fn nothing_starts_before_what_waits_for_memory() {
    let now = Instant::now();
    let mut scheduler = within(4 * (4096 + 1280));
    let small = admit(&mut scheduler, &request(1, 8, 2), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [small]);
    let large = NewRequest { deadline: Some(now + SECOND), ..request(2, 16, 1) };
    let large = admit(&mut scheduler, &large, now);
    let beside = admit(&mut scheduler, &request(3, 8, 1), now);
    let batch = scheduler.next_batch(now).unwrap();
    assert_eq!((batch.jobs, batch.starting), (vec![small], vec![]), "there would be room for the third");
    scheduler.stepped(&[small]);
    assert_eq!(leaders(&mut scheduler, 2, now), [large, beside]);
}

#[test]
fn weights_that_come_leave_what_was_admitted_its_memory_and_a_smaller_budget_names_what_can_not_begin() {
    let now = Instant::now();
    let mut scheduler = within(100_000);
    let running = admit(&mut scheduler, &request(1, 8, 9), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [running]);
    scheduler.admit(&request(2, 16, 1), now).unwrap();
    assert_eq!(scheduler.reserved_bytes(), 4 * (4096 + 1280));
    scheduler.set_free(Some(Free { now: 6000, at_best: 100_000 }));
    assert!(scheduler.misfits().is_empty(), "a load is going on, and may end");
    scheduler.set_free(Some(Free { now: 6000, at_best: 6000 }));
    assert_eq!(scheduler.misfits(), [RequestId(2)].into());
    assert_eq!(leaders(&mut scheduler, 1, now), [running], "what has begun is finished");
}

#[test]
fn while_a_load_takes_the_room_of_the_first_what_fits_is_drawn() {
    let now = Instant::now();
    let mut scheduler = within(100_000);
    scheduler.set_free(Some(Free { now: 6000, at_best: 100_000 }));
    scheduler.admit(&request(1, 16, 1), now).unwrap();
    let small = admit(&mut scheduler, &request(2, 8, 1), now);
    assert_eq!(leaders(&mut scheduler, 1, now), [small]);
    assert_eq!(scheduler.next_batch(now), None);
}
