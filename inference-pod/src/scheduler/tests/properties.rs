//! What holds for every history.

use proptest::prelude::*;

use super::play::{Play, Setting, arrivals, settings};
use super::*;

/// What a step takes in these worlds: jobs share a quarter of it.
fn cost(shape: Shape) -> Duration {
    let rows = shape.key.height * shape.key.width * shape.key.rows;
    Duration::from_millis(u64::from(rows) * (1 + 3 * shape.jobs as u64))
}

fn times() -> StepTimes {
    let mut times = StepTimes::default();
    for (pipeline, side, jobs) in (0..2).flat_map(|p| (1..5).flat_map(move |s| (1..5).map(move |j| (p, s, j)))) {
        let shape = Shape { pipeline: PipelineId(pipeline), key: key(side), jobs };
        times.push(shape, cost(shape));
    }
    times
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// And on the way: never over the batch, the running, the memory; always something steps; the bound on waiting.
    #[test]
    fn no_job_is_lost_or_drawn_twice(arrivals in arrivals(), setting in settings()) {
        let play = Play::new(setting).history(&arrivals)?.until_the_end()?;
        for (job, wanted) in &play.wanted {
            let taken = play.taken.get(job).copied().unwrap_or_default();
            if play.cancelled.contains(job) {
                prop_assert!(taken < wanted.steps());
            } else {
                prop_assert_eq!(taken, wanted.steps());
                prop_assert!(play.finished.contains(job));
            }
        }
    }

    #[test]
    fn the_lead_changes_hands_before_its_holders_end_a_bounded_number_of_times_for_each_job(
        arrivals in arrivals(), setting in settings()
    ) {
        let play = Play::new(setting).history(&arrivals)?.until_the_end()?;
        prop_assert!(play.takeovers <= 6 * play.wanted.len(), "{} times for {} jobs", play.takeovers, play.wanted.len());
    }

    #[test]
    fn what_is_left_is_never_more_than_was_said_when_nothing_else_comes(arrivals in arrivals(), setting in settings()) {
        let limits = Limits { max_running: 1000, ..setting.limits };
        let play = Play::new(Setting { limits, free: None, ..setting }).history(&arrivals)?;
        let (calls, wait) = (play.scheduler.calls_left(), duration(&play.scheduler.work_left(), &times()));
        let before = play.calls.len();
        let play = play.until_the_end()?;
        let taken = &play.calls[before..];
        prop_assert!(taken.len() as u64 <= calls, "{} calls; {} were said", taken.len(), calls);
        let took: Duration = taken.iter().map(|shape| cost(*shape)).sum();
        prop_assert!(took <= wait + Duration::from_millis(1), "{:?}; {:?} was said", took, wait);
    }

    #[test]
    fn where_room_is_scarce_the_steps_of_all_jobs_bound_what_is_left(arrivals in arrivals(), setting in settings()) {
        let play = Play::new(setting).history(&arrivals)?;
        let steps = |play: &Play| play.taken.values().map(|steps| u64::from(*steps)).sum::<u64>();
        let (calls, taken) = (play.calls.len(), steps(&play));
        let play = play.until_the_end()?;
        prop_assert!((play.calls.len() - calls) as u64 <= steps(&play) - taken);
    }

    #[test]
    fn waiting_never_passes_the_bound_by_more_than_one_request(arrivals in arrivals(), setting in settings()) {
        let mut play = Play::new(Setting { limits: Limits { max_waiting: 5, ..setting.limits }, ..setting });
        for (id, arrival) in arrivals.iter().enumerate() {
            play.arrive(id, arrival)?;
            prop_assert!(play.scheduler.waiting() <= 5);
        }
    }
}

/// The bound would hold of itself in histories where nothing grows old.
#[test]
fn in_these_histories_jobs_do_come_of_age_while_they_wait() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut aged = 0;
    for _ in 0..50 {
        let history = (arrivals(), settings()).new_tree(&mut runner).unwrap().current();
        let play = Play::new(history.1).history(&history.0).and_then(Play::until_the_end).unwrap();
        aged += play.came_of_age();
    }
    assert!(aged > 500, "{aged} jobs");
}
