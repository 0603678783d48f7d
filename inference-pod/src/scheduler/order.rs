//! Who goes first. Knows classes, turns, deadlines and arrival; does not know shapes or batches.

use std::time::{Duration, Instant};

use easel_api::Priority;

use super::JobId;

/// The policy: the least goes first; the fields are compared from the top down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The class, or the highest once the job is of age.
    pub(super) lane: Priority,
    /// Its tenant's: tenants of a lane lead model calls in turn.
    pub(super) turn: u64,
    pub(super) due: Due,
    /// Makes the order total.
    pub(super) job: JobId,
}

/// Earliest deadline first, and first in, first out among those without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// The deadline, but at most `patience` after arrival: a job of age is due before all that comes later.
    at: Instant,
    arrival: Instant,
}

impl Due {
    pub(super) fn new(arrival: Instant, deadline: Option<Instant>, patience: Duration) -> Self {
        let patient = arrival + patience;
        // A deadline in the past must not go before those that are merely older.
        let at = deadline.map_or(patient, |deadline| deadline.clamp(arrival, patient));
        Self { at, arrival }
    }

    /// Where a job of this class competes at this time.
    pub(super) fn lane(self, class: Priority, patience: Duration, now: Instant) -> Priority {
        if now.saturating_duration_since(self.arrival) >= patience { Priority::High } else { class }
    }
}
