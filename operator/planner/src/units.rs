//! Money and memory as integers with their unit in the type.
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

const MICRO: u64 = 1_000_000;

impl MicroUsdPerHour {
    pub const fn new(micro_usd: u64) -> Self {
        Self(micro_usd)
    }

    /// Reads dollars, exactly: no float comes between the user's text and the bill.
    pub fn from_dollars(text: &str) -> Result<Self, PriceError> {
        let refused = || PriceError(text.chars().take(32).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 9 || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
            return Err(refused());
        }
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| refused())?;
        let whole: u64 = whole.parse().map_err(|_| refused())?;
        Ok(Self(whole * MICRO + fraction))
    }

    #[must_use]
    pub fn times(self, replicas: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(replicas)))
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

    pub fn micros(self) -> u64 {
        self.0
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

    proptest! {
        #[test]
        fn every_price_reads_back(micro in 0u64..=999_999_999_999_999) {
            let price = MicroUsdPerHour::new(micro);
            prop_assert_eq!(MicroUsdPerHour::from_dollars(&price.to_string()), Ok(price));
        }
    }
}
