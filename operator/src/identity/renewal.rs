//! When a certificate is made anew: a function of what is held, who signs now, and the time.
//! Knows no key and no Secret.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Lifetimes. The authority outlives every installation that is not upgraded for years; a leaf that leaks is worthless
/// within the week.
pub(super) const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
pub(super) const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Nodes' clocks differ; a certificate is valid on those that lag.
pub(super) const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The authority that its holders trust, PEM.
    pub authority: String,
    /// Its one subject alternative name.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Keep,
    Renew(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Missing,
    OtherAuthority,
    OtherName,
    /// Two thirds of its lifetime are over: the last third is for an operator that is down.
    Ageing,
}

pub(super) fn renewal(held: Option<&Held>, authority: &str, name: &str, now: Timestamp) -> Renewal {
    let Some(held) = held else { return Renewal::Renew(Why::Missing) };
    let lifetime = held.not_after.duration_since(held.not_before);
    let renew_at = held.not_after - lifetime / 3;
    if held.authority.trim() != authority.trim() {
        Renewal::Renew(Why::OtherAuthority)
    } else if held.name != name {
        Renewal::Renew(Why::OtherName)
    } else if now >= renew_at {
        Renewal::Renew(Why::Ageing)
    } else {
        Renewal::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_when_something_else_is_wanted() {
        let start = Timestamp::from_second(1_000_000).unwrap();
        let held = Held {
            not_before: start,
            not_after: start + SignedDuration::from_hours(9),
            authority: "ca\n".into(),
            name: "n".into(),
        };
        let at = |hours: i64| start + SignedDuration::from_hours(hours);
        for (held, authority, name, now, expected) in [
            (None, "ca", "n", at(0), Renewal::Renew(Why::Missing)),
            (Some(&held), "ca", "n", at(5), Renewal::Keep),
            (Some(&held), "ca", "n", at(6), Renewal::Renew(Why::Ageing)),
            (Some(&held), "ca", "n", at(90), Renewal::Renew(Why::Ageing)),
            (Some(&held), "other", "n", at(1), Renewal::Renew(Why::OtherAuthority)),
            (Some(&held), "ca", "other", at(1), Renewal::Renew(Why::OtherName)),
        ] {
            assert_eq!(renewal(held, authority, name, now), expected);
        }
    }
}
