//! Moments and spans as whole microseconds: exact, ordered and cheap enough for the innermost loops.
//! Knows no clock; the origin of a moment is the caller's.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// Microseconds since an origin that the caller chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

const MICROS: f64 = 1e6;

impl Moment {
    pub const ORIGIN: Self = Self(0);
    pub const NEVER: Self = Self(u64::MAX);

    pub fn from_secs(seconds: f64) -> Self {
        Self(micros(seconds))
    }

    pub fn secs(self) -> f64 {
        self.0 as f64 / MICROS
    }

    /// Zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    pub const ZERO: Self = Self(0);
    /// Stands for "has not been asked for": longer than anything that a caller bounds.
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Rounded up to a whole microsecond; what is negative or no number is zero.
    pub fn from_secs(seconds: f64) -> Self {
        Self(micros(seconds))
    }

    pub fn secs(self) -> f64 {
        self.0 as f64 / MICROS
    }

    /// How long this much work takes at a speed; rounded up.
    #[must_use]
    pub fn at(self, speed: f64) -> Self {
        Self((self.0 as f64 / speed).ceil() as u64)
    }

    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor).ceil() as u64)
    }

    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The next multiple of a step; itself where there is no step.
    #[must_use]
    pub fn whole(self, step: Self) -> Self {
        if step.0 == 0 { self } else { Self(self.0.div_ceil(step.0).saturating_mul(step.0)) }
    }
}

fn micros(seconds: f64) -> u64 {
    // A cast saturates: below zero and NaN become 0.
    (seconds * MICROS).ceil() as u64
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_micros(span.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Add<Span> for Moment {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub<Span> for Moment {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl std::iter::Sum for Span {
    fn sum<I: Iterator<Item = Self>>(spans: I) -> Self {
        spans.fold(Self::ZERO, |sum, span| sum + span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_never_negative_and_never_overflows() {
        assert_eq!(Span::from_secs(-1.0), Span::ZERO);
        assert_eq!(Span::from_secs(f64::NAN), Span::ZERO);
        assert_eq!(Moment::from_secs(1.0).since(Moment::from_secs(2.0)), Span::ZERO);
        assert_eq!(Moment::NEVER + Span::from_secs(1.0), Moment::NEVER);
    }

    #[test]
    fn half_the_speed_takes_twice_as_long() {
        assert_eq!(Span::from_secs(3.0).at(0.5), Span::from_secs(6.0));
        assert_eq!(Span::from_secs(3.0).at(1.0), Span::from_secs(3.0));
    }

    #[test]
    fn what_is_left_of_a_step_counts_as_a_whole_one() {
        assert_eq!(Span::from_secs(2.1).whole(Span::from_secs(1.0)), Span::from_secs(3.0));
        assert_eq!(Span::from_secs(2.0).whole(Span::from_secs(1.0)), Span::from_secs(2.0));
        assert_eq!(Span::from_secs(2.1).whole(Span::ZERO), Span::from_secs(2.1));
    }
}
