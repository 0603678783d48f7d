//! Who goes first. Knows deadlines and arrival; does not know shapes or batches.

use std::time::{Duration, Instant};

use super::JobId;

/// The least goes first; the fields are compared from the top down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    /// The deadline, but at most `patience` after arrival: earliest deadline first, and first in, first out among
    /// those without. After this instant nothing that arrives later goes first, which bounds everyone's waiting.
    due: Instant,
    arrival: Instant,
    /// Makes the order total.
    job: JobId,
}

impl Urgency {
    pub(super) fn new(job: JobId, arrival: Instant, deadline: Option<Instant>, patience: Duration) -> Self {
        let patient = arrival + patience;
        // A deadline in the past must not go before those that are merely older.
        let due = deadline.map_or(patient, |deadline| deadline.clamp(arrival, patient));
        Self { due, arrival, job }
    }
}
