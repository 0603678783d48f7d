//! How long a request takes: steps × step time. Measured where a pod has measured, a stated prior elsewhere.
//! Knows no queue; what waits before a request is the route's affair.

use std::time::Duration;

use crate::snapshot::Resident;

/// Step time of a model that nobody has run yet. Only the order of endpoints depends on it, and only until the first
/// step: an unmeasured endpoint should neither win nor lose against a measured one by much.
pub const STEP_PRIOR: Duration = Duration::from_millis(100);

/// Time to draw, without queueing.
pub fn drawing(steps: u64, step: Option<Duration>) -> Duration {
    let nanos = u128::from(steps).saturating_mul(step.unwrap_or(STEP_PRIOR).as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Time for a request of the model's defaults on the slowest replica that serves it; `None` until one was measured.
pub fn slowest<'a>(steps: u32, residents: impl Iterator<Item = &'a Resident>) -> Option<Duration> {
    residents.filter(|resident| resident.ready).filter_map(|resident| resident.step).max().map(|step| step * steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_with_steps_and_never_overflows() {
        assert_eq!(drawing(20, Some(Duration::from_millis(50))), Duration::from_secs(1));
        assert_eq!(drawing(2, None), STEP_PRIOR * 2);
        assert!(drawing(u64::MAX, Some(Duration::MAX)) > Duration::from_secs(1 << 30));
    }

    #[test]
    fn the_slowest_ready_replica_counts() {
        let resident = |ready, ms| Resident { digest: String::new(), ready, step: Some(Duration::from_millis(ms)) };
        let residents = [resident(true, 10), resident(true, 30), resident(false, 90)];
        assert_eq!(slowest(2, residents.iter()), Some(Duration::from_millis(60)));
        assert_eq!(slowest(2, [].iter()), None);
    }
}
