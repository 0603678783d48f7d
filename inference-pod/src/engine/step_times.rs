//! The mean of the last steps. Knows durations only.

use std::collections::VecDeque;
use std::time::Duration;

/// Enough to smooth one picture's steps, few enough to follow a device that slows down.
const KEPT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct StepTimes(VecDeque<Duration>);

impl StepTimes {
    pub(super) fn push(&mut self, step: Duration) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(step);
    }

    pub(super) fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.0.len()).ok().filter(|count| *count > 0)?;
        Some(self.0.iter().sum::<Duration>() / count)
    }

    pub(super) fn mean_ms(&self) -> Option<f64> {
        self.mean().map(|mean| mean.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_last_steps_only() {
        let mut times = StepTimes::default();
        assert_eq!(times.mean(), None);
        times.push(Duration::from_secs(1000));
        for _ in 0..KEPT {
            times.push(Duration::from_millis(20));
        }
        assert_eq!(times.mean_ms(), Some(20.0));
    }
}
