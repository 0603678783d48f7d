//! How much a request matters, and on whose account it runs: two headers that the gateway passes on to pods.
//! Knows their names and values; what they do to the order is the pod's scheduler's.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// `high`, `normal` (when absent) or `low`; anything else is refused.
pub const PRIORITY_HEADER: &str = "x-easel-priority";
/// An opaque name; requests without one are one tenant's together.
pub const TENANT_HEADER: &str = "x-easel-tenant";

const MAX_TENANT: usize = 64;

/// The least goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Of a header's value, `None` when there is no header.
    pub fn of_header(value: Option<&[u8]>) -> Result<Self, ApiError> {
        let Some(value) = value else { return Ok(Self::default()) };
        Self::ALL.into_iter().find(|priority| priority.as_str().as_bytes() == value).ok_or_else(|| {
            let found: String = String::from_utf8_lossy(value).chars().take(MAX_TENANT).collect();
            let message = format!("{PRIORITY_HEADER} is '{found}'; it must be high, normal or low");
            ApiError::invalid(PRIORITY_HEADER, "invalid_value", message)
        })
    }
}

/// Whoever shares a pod's steps with others by turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(std::sync::Arc<str>);

impl Tenant {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Empty for the common tenant.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a header's value, `None` when there is no header.
    pub fn of_header(value: Option<&[u8]>) -> Result<Self, ApiError> {
        let Some(value) = value else { return Ok(Self::default()) };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(byte);
        match std::str::from_utf8(value) {
            Ok(name) if (1..=MAX_TENANT).contains(&name.len()) && value.iter().all(plain) => Ok(Self::new(name)),
            Ok(_) | Err(_) => {
                let message =
                    format!("{TENANT_HEADER} must be 1 to {MAX_TENANT} letters, digits or any of - _ . : / @");
                Err(ApiError::invalid(TENANT_HEADER, "invalid_value", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_one_of_three_words_and_normal_when_absent() {
        assert_eq!(Priority::of_header(None), Ok(Priority::Normal));
        for priority in Priority::ALL {
            assert_eq!(Priority::of_header(Some(priority.as_str().as_bytes())), Ok(priority));
        }
        for value in ["", "High", "urgent", "1"] {
            let error = Priority::of_header(Some(value.as_bytes())).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(PRIORITY_HEADER)));
            assert!(error.message.contains(&format!("'{value}'")), "{error}");
        }
    }

    #[test]
    fn a_tenant_is_a_short_plain_name() {
        assert_eq!(Tenant::of_header(None), Ok(Tenant::default()));
        assert_eq!(Tenant::of_header(Some(b"team/a@x")).unwrap().as_str(), "team/a@x");
        for value in [&b""[..], b"a b", b"\xff", &[b'a'; 65]] {
            let error = Tenant::of_header(Some(value)).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(TENANT_HEADER)));
        }
    }

    #[test]
    fn the_higher_priority_is_the_lesser() {
        assert!(Priority::High < Priority::Normal && Priority::Normal < Priority::Low);
    }
}
