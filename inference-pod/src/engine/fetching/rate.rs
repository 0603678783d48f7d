//! How long a fetch will still take, by its rate over the last seconds.
//! Pure: the clock is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const LOOKS_BACK: Duration = Duration::from_secs(5);
/// Less tells nothing.
const LEAST: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// Notes how far it is. `None` until there is a rate, and while nothing moves.
    pub(super) fn seconds_left(&mut self, now: Instant, done_bytes: u64, total_bytes: u64) -> Option<u64> {
        self.0.push_back((now, done_bytes));
        while self.0.len() > 1 && self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= LOOKS_BACK) {
            self.0.pop_front();
        }
        let (since, before) = self.0.front()?;
        let (took, came) = (now.duration_since(*since), done_bytes.saturating_sub(*before));
        if took < LEAST || came == 0 {
            return None;
        }
        let left = total_bytes.saturating_sub(done_bytes) as f64 * took.as_secs_f64() / came as f64;
        Some(left.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut at = |second: u64, done| rate.seconds_left(start + Duration::from_secs(second), done, 1000);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 100), Some(9));
        // Slower since: what was fast is forgotten after five seconds.
        for second in 2..=5 {
            at(second, 100 + 10 * (second - 1));
        }
        assert_eq!(at(6, 150), Some(85));
    }

    #[test]
    fn a_fetch_that_stands_still_has_no_end() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        for second in 0..20 {
            assert_eq!(rate.seconds_left(start + Duration::from_secs(second), 7, 100), None);
        }
    }
}
