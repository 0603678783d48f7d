//! When a certificate, or what its holder trusts, is written anew: a function of what is held, who signs now, and the
//! time. Knows no key and no Secret.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A leaf that leaks is worthless within the week.
pub(super) const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What a stolen key of the authority is worth ends within the year, and replacing it stays a habit.
pub(super) const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// An authority is replaced this long before its end: a leaf that can't be written (its Secret is immutable, say) holds
/// each of the two phases up until it expires, a week; the waits take minutes; the other two weeks are for an operator
/// that is down.
pub(super) const ROTATE_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Nodes' clocks differ; a certificate is valid on those that lag.
pub(super) const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Name of the key that signed it.
    pub signer: KeyId,
    /// The authorities that its holders trust, PEM.
    pub trusts: String,
    /// Its subject alternative names.
    pub names: Vec<String>,
}

/// As the key identifiers in certificates name an authority's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) Vec<u8>);

/// What a certificate shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub signer: KeyId,
    pub trusts: String,
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Keep,
    /// The same certificate, with other authorities beside it.
    Retrust,
    Renew(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Missing,
    OtherAuthority,
    OtherNames,
    /// Two thirds of its lifetime are over: the last third is for an operator that is down.
    Ageing,
    /// A leader whose clock was ahead made it; others would not take it yet.
    NotYetValid,
}

pub(super) fn renewal(held: Option<&Held>, wanted: &Wanted, now: Timestamp) -> Renewal {
    let Some(held) = held else { return Renewal::Renew(Why::Missing) };
    let lifetime = held.not_after.duration_since(held.not_before);
    let renew_at = held.not_after - lifetime / 3;
    if held.signer != wanted.signer {
        Renewal::Renew(Why::OtherAuthority)
    } else if held.names != wanted.names {
        Renewal::Renew(Why::OtherNames)
    } else if now >= renew_at {
        Renewal::Renew(Why::Ageing)
    } else if now < held.not_before {
        Renewal::Renew(Why::NotYetValid)
    } else if held.trusts != wanted.trusts {
        Renewal::Retrust
    } else {
        Renewal::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId(text.into())
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_when_something_else_is_wanted() {
        let start = Timestamp::from_second(1_000_000).unwrap();
        let at = |hours: i64| start + SignedDuration::from_hours(hours);
        let held = Held {
            not_before: start,
            not_after: at(9),
            signer: id("ca"),
            trusts: "ca".into(),
            names: vec!["n".into()],
        };
        let wanted = Wanted { signer: id("ca"), trusts: "ca".into(), names: vec!["n".into()] };
        let both = Wanted { trusts: "ca next".into(), ..wanted.clone() };
        let other = Wanted { signer: id("other"), ..both.clone() };
        let named = Wanted { names: vec!["n".into(), "m".into()], ..wanted.clone() };
        for (held, wanted, now, expected) in [
            (None, &wanted, at(0), Renewal::Renew(Why::Missing)),
            (Some(&held), &wanted, at(5), Renewal::Keep),
            (Some(&held), &wanted, at(6), Renewal::Renew(Why::Ageing)),
            (Some(&held), &wanted, at(90), Renewal::Renew(Why::Ageing)),
            (Some(&held), &wanted, at(-1), Renewal::Renew(Why::NotYetValid)),
            (Some(&held), &both, at(1), Renewal::Retrust),
            (Some(&held), &both, at(6), Renewal::Renew(Why::Ageing)),
            (Some(&held), &other, at(1), Renewal::Renew(Why::OtherAuthority)),
            (Some(&held), &named, at(1), Renewal::Renew(Why::OtherNames)),
        ] {
            assert_eq!(renewal(held, wanted, now), expected);
        }
    }
}
