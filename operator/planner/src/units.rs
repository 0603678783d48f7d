//! Money, memory and speed as integers with their unit in the type.
//! A price times a time is a cost, and there is no other way from one to the other.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Millionths of a US dollar an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsdPerHour(u64);

/// Millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(u64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a price; write US dollars with at most six decimals, such as 2.49")]
pub struct PriceError(String);

/// How many times as fast as the reference a replica draws, in ten-thousandths: never 0, so that every time divides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a speed; write how many times as fast as the reference it is, more than 0 and below 10000, with at most four decimals, such as 0.5 or 2"
)]
pub struct SpeedError(String);

const MICRO: u64 = 1_000_000;

/// Exactly: no float comes between the user's text and the bill.
fn micro_of(text: &str) -> Option<u64> {
    decimal(text, 9, 6)
}

/// A decimal number in units of its last allowed decimal.
fn decimal(text: &str, whole_digits: usize, decimals: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > whole_digits
        || fraction.len() > decimals
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

impl MicroUsdPerHour {
    pub const fn new(micro_usd: u64) -> Self {
        Self(micro_usd)
    }

    /// Reads dollars with at most six decimals.
    pub fn from_dollars(text: &str) -> Result<Self, PriceError> {
        micro_of(text).map(Self).ok_or_else(|| PriceError(text.chars().take(32).collect()))
    }

    #[must_use]
    pub fn times(self, replicas: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(replicas)))
    }

    pub fn micros(self) -> u64 {
        self.0
    }

    /// What this price costs for a time, rounded up: a bill is never below what was used.
    pub fn cost(self, time: Duration) -> MicroUsd {
        let product = u128::from(self.0) * time.as_nanos();
        let hour = u128::from(3600_u32) * 1_000_000_000;
        MicroUsd(u64::try_from(product.div_ceil(hour)).unwrap_or(u64::MAX))
    }
}

impl MicroUsd {
    pub const fn new(micro_usd: u64) -> Self {
        Self(micro_usd)
    }

    /// Reads dollars with at most six decimals.
    pub fn from_dollars(text: &str) -> Result<Self, PriceError> {
        micro_of(text).map(Self).ok_or_else(|| PriceError(text.chars().take(32).collect()))
    }

    pub fn micros(self) -> u64 {
        self.0
    }
}

impl Speed {
    /// The reference's.
    pub const ONE: Self = Self(10_000);

    /// Reads a decimal number with at most four decimals.
    pub fn from_decimal(text: &str) -> Result<Self, SpeedError> {
        let parts = decimal(text, 4, 4).and_then(|parts| u32::try_from(parts).ok()).filter(|parts| *parts > 0);
        parts.map(Self).ok_or_else(|| SpeedError(text.chars().take(32).collect()))
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE.0)
    }

    /// How long what takes `time` at this speed takes at another.
    #[must_use]
    pub fn scaled_to(self, other: Self, time: Duration) -> Duration {
        let nanos = time.as_nanos().saturating_mul(u128::from(self.0)) / u128::from(other.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self::ONE
    }
}

impl Add for MicroUsdPerHour {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// Dollars with as many decimals as are needed, at least two: `0.04`, `2.4905`.
fn dollars(f: &mut fmt::Formatter<'_>, micro: u64) -> fmt::Result {
    let fraction = format!("{:06}", micro % MICRO);
    let kept = fraction.trim_end_matches('0').len().max(2);
    write!(f, "{}.{}", micro / MICRO, &fraction[..kept])
}

impl fmt::Display for MicroUsdPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dollars(f, self.0)
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dollars(f, self.0)
    }
}

impl fmt::Display for Bytes {
    /// In the largest binary unit that leaves at least 1, with one decimal where it is not whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = match self.0 {
            n if n >= 1 << 30 => ("GiB", 1_u64 << 30),
            n if n >= 1 << 20 => ("MiB", 1 << 20),
            n if n >= 1 << 10 => ("KiB", 1 << 10),
            _ => return write!(f, "{} bytes", self.0),
        };
        if self.0.is_multiple_of(size) {
            write!(f, "{} {unit}", self.0 / size)
        } else {
            write!(f, "{:.1} {unit}", self.0 as f64 / size as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prices_read_and_print_exactly() {
        for (text, printed) in [("2.49", "2.49"), ("0", "0.00"), ("0.04", "0.04"), ("1.000001", "1.000001")] {
            assert_eq!(MicroUsdPerHour::from_dollars(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        for text in ["", ".5", "1,5", "-1", "1e3", "0.0000001", "$2", "9999999999"] {
            assert!(MicroUsdPerHour::from_dollars(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_hour_costs_the_hourly_price_and_a_moment_never_costs_nothing() {
        let price = MicroUsdPerHour::from_dollars("3.60").unwrap();
        assert_eq!(price.cost(Duration::from_hours(1)).micros(), 3_600_000);
        assert_eq!(price.cost(Duration::from_nanos(1)).micros(), 1);
    }

    #[test]
    fn speeds_are_above_nothing_and_times_divide_by_them() {
        for text in ["0", "0.0000", "", "-1", "1e3", "10000", "0.00001"] {
            assert!(Speed::from_decimal(text).is_err(), "{text}");
        }
        let (slow, fast) = (Speed::from_decimal("0.5").unwrap(), Speed::from_decimal("2").unwrap());
        assert_eq!(Speed::from_decimal("1"), Ok(Speed::ONE));
        assert_eq!(slow.scaled_to(fast, Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(fast.scaled_to(slow, Duration::from_secs(1)), Duration::from_secs(4));
    }

    proptest! {
        #[test]
        fn every_price_reads_back(micro in 0u64..=999_999_999_999_999) {
            let price = MicroUsdPerHour::new(micro);
            prop_assert_eq!(MicroUsdPerHour::from_dollars(&price.to_string()), Ok(price));
        }
    }
}
