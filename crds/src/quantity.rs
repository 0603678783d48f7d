//! Kubernetes quantities (`2Gi`, `500m`, `1`) as users write them, and their value.
//! Does not know what is measured: bytes or cores is the field's affair.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A quantity as text. Users may write a plain number too, as in core Kubernetes kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a quantity; write a number with an optional suffix, such as 2Gi, 500M or 250m")]
pub struct QuantityError(String);

impl Quantity {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value in whole units, rounded up: `1.5Ki` is 1536, `250m` is 1.
    pub fn value(&self) -> Result<u64, QuantityError> {
        let milli = self.milli_value()?;
        Ok(u64::try_from(milli.div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// The value in thousandths, rounded down: `250m` is 250.
    pub fn milli_value(&self) -> Result<u128, QuantityError> {
        self.parse().ok_or_else(|| QuantityError(self.0.clone()))
    }

    fn parse(&self) -> Option<u128> {
        let digits_end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || whole.len() > 18 {
            return None;
        }
        let (factor, divisor) = scale(suffix)?;
        let ten = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let read = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
        let mantissa = read(whole)?.checked_mul(ten)?.checked_add(read(fraction)?)?;
        Some(mantissa.checked_mul(factor)?.checked_mul(1000)? / ten / divisor)
    }
}

/// Factor and divisor of a suffix, by Kubernetes' `resource.Quantity`.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        _ => return None,
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(i64),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self(text),
            Written::Number(number) => Self(number.to_string()),
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": r"^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        for (text, milli) in [
            ("1", 1000),
            ("250m", 250),
            ("2Gi", (2 << 30) * 1000),
            ("1.5Ki", 1536 * 1000),
            ("500M", 500_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(Quantity::new(text).milli_value(), Ok(milli), "{text}");
        }
        assert_eq!(Quantity::new("250m").value(), Ok(1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ".", "Gi", "-1", "1gb", "1 Gi", "1..2", "99999999999999999999"] {
            assert!(Quantity::new(text).value().is_err(), "{text}");
        }
    }

    #[test]
    fn a_plain_number_is_a_quantity() {
        let quantity: Quantity = serde_json::from_str("2").unwrap();
        assert_eq!(quantity.value(), Ok(2));
    }
}
