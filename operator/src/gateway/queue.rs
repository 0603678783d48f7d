//! Holds a request until a pod has room for it, its deadline comes, or there is no hope.
//! Knows when to look again; what it looks for is the route's affair.

use std::sync::Arc;
use std::time::Duration;

use easel_api::error::ApiError;
use easel_planner::route::Rejection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::gateway::admit::{self, Job};
use crate::gateway::demand::{Demand, Waits};
use crate::gateway::metrics::Up;
use crate::gateway::route::{Booking, Desk, NotNow, Place};
use crate::gateway::tries::Tries;
use crate::routing_table::RoutingTables;

/// Looks again after this time even if nothing rang: a pod's "busy" ends without a sound.
const TICK: Duration = Duration::from_millis(250);

/// Seconds to say in `retry-after` when nobody knows.
const RETRY: u64 = 5;

#[derive(Clone, Debug)]
pub(super) struct Queue {
    desk: Arc<Desk>,
    tables: RoutingTables,
    /// How many may wait that no pod has been asked for yet.
    room: Arc<Semaphore>,
    max_waiting: u32,
    waiting: prometheus_client::metrics::gauge::Gauge,
    demand: Demand,
}

/// One that waits: counted, and within the bound unless it was accepted before.
struct Waiter {
    _room: Option<OwnedSemaphorePermit>,
    _counted: Up,
    _waits: Waits,
}

impl Queue {
    pub(super) fn new(
        tables: RoutingTables,
        max_waiting: u32,
        waiting: prometheus_client::metrics::gauge::Gauge,
        demand: Demand,
    ) -> Self {
        let room = Arc::new(Semaphore::new(max_waiting as usize));
        Self { desk: Arc::default(), tables, room, max_waiting, waiting, demand }
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Room on a pod, as soon as there is some.
    pub(super) async fn wait(&self, job: &Job, place: Place, tries: &mut Tries) -> Result<Booking, ApiError> {
        let mut tables = self.tables.clone();
        let (mut waiter, mut in_line) = (None, None);
        loop {
            let rung = self.desk.rung();
            let table = Arc::clone(&tables.borrow_and_update());
            admit::still_there(&table, job)?;
            tries.forgive(&table, &job.model);
            let now = Instant::now();
            let not_now = match self.desk.book(&table, job, &tries.tried(now), place) {
                Ok(booking) => return Ok(booking),
                Err(not_now) => not_now,
            };
            if now >= job.deadline {
                return Err(late(not_now));
            }
            if not_now == NotNow::Rejected(Rejection::AllFailed)
                && let Some(error) = tries.all_failed()
            {
                return Err(error);
            }
            if waiter.is_none() {
                waiter = Some(self.enter(job, tries, not_now)?);
            }
            in_line = match not_now {
                NotNow::Behind | NotNow::Rejected(Rejection::QueueFull { .. }) => {
                    in_line.or_else(|| Some(self.desk.join(&job.model, place)))
                }
                NotNow::Rejected(_) => None,
            };
            let again = [Some(job.deadline), Some(now + TICK), tries.next_rest(now)].into_iter().flatten().min();
            tokio::select! {
                () = rung => {}
                // A closed channel means that the index is gone: what is known stays, and the tick goes on.
                Ok(()) = tables.changed() => {}
                () = sleep_until(again.unwrap_or(job.deadline)) => {}
            }
        }
    }

    fn enter(&self, job: &Job, tries: &Tries, not_now: NotNow) -> Result<Waiter, ApiError> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok();
        if room.is_none() && !tries.accepted() {
            let message = format!("{} requests wait already, and {}", self.max_waiting, why(not_now));
            return Err(ApiError::queue_full(message, retry_after(not_now)));
        }
        Ok(Waiter { _room: room, _counted: Up::new(&self.waiting), _waits: self.demand.waits(job) })
    }
}

fn late(not_now: NotNow) -> ApiError {
    let code = match not_now {
        NotNow::Behind | NotNow::Rejected(Rejection::QueueFull { .. }) => "queue_full",
        NotNow::Rejected(Rejection::NoReplica) => "no_replica",
        NotNow::Rejected(Rejection::AllFailed) => "pods_failed",
        NotNow::Rejected(Rejection::Draining) => "pods_draining",
        NotNow::Rejected(Rejection::Loading) => "model_loading",
    };
    let message = format!("the deadline came while the request waited: {}", why(not_now));
    ApiError::unavailable(code, message, retry_after(not_now))
}

fn why(not_now: NotNow) -> String {
    match not_now {
        NotNow::Behind => "requests with earlier deadlines wait for the same model".into(),
        NotNow::Rejected(rejection) => rejection.to_string(),
    }
}

fn retry_after(not_now: NotNow) -> u64 {
    match not_now {
        NotNow::Rejected(Rejection::QueueFull { wait }) => wait.as_secs() + 1,
        NotNow::Behind
        | NotNow::Rejected(Rejection::NoReplica | Rejection::AllFailed | Rejection::Draining | Rejection::Loading) => {
            RETRY
        }
    }
}
