//! How one authority follows another: the phases, and when one ends. The order that keeps everybody connected is here.
//! Pure: the clock is an argument, and only time that this process has seen go by counts.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use super::renewal::ROTATE_BEFORE;

/// How far the Secret of the authority says that it is. All that survives a crash: a leader that finds it waits again
/// from the start, so that a restart, another leader or a clock that was set can make a rotation longer, never shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// One authority, which signs and is trusted.
    Steady,
    /// A second one is trusted, and signs nothing yet.
    Introduced,
    /// The second one signs; the former is trusted still, and its key is gone.
    Switched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Steady,
    /// Certificates' Secrets are being given both authorities.
    Introducing,
    /// All have shown both since then; their readers need time to take them up.
    Spreading {
        since: Instant,
    },
    /// Certificates are being made anew by the second authority.
    Replacing,
    /// All have been of the second one since then; their holders need time to take them up.
    Retiring {
        since: Instant,
    },
}

/// What is there, when the certificates have been looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The authority is old, or somebody asked for another.
    pub due: bool,
    /// Certificates in force whose Secrets don't show all the authorities that shall be trusted.
    pub untold: usize,
    /// Certificates in force that another authority signed than the one that signs now.
    pub unreplaced: usize,
}

/// How long to wait where nothing tells that everybody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub spread: Duration,
    pub grace: Duration,
}

impl Phase {
    pub(super) fn of(stored: Stored) -> Self {
        match stored {
            Stored::Steady => Self::Steady,
            Stored::Introduced => Self::Introducing,
            Stored::Switched => Self::Replacing,
        }
    }

    pub(super) fn stored(self) -> Stored {
        match self {
            Self::Steady => Stored::Steady,
            Self::Introducing | Self::Spreading { .. } => Stored::Introduced,
            Self::Replacing | Self::Retiring { .. } => Stored::Switched,
        }
    }

    pub(super) fn next(self, seen: Seen, waits: Waits, now: Instant) -> Self {
        let Seen { due, untold, unreplaced } = seen;
        match self {
            Self::Steady if due => Self::Introducing,
            Self::Steady => Self::Steady,
            Self::Introducing | Self::Spreading { .. } if untold > 0 => Self::Introducing,
            Self::Introducing => Self::Spreading { since: now },
            Self::Spreading { since } if now.duration_since(since) >= waits.spread => Self::Replacing,
            Self::Spreading { since } => Self::Spreading { since },
            Self::Replacing | Self::Retiring { .. } if untold + unreplaced > 0 => Self::Replacing,
            Self::Replacing => Self::Retiring { since: now },
            Self::Retiring { since } if now.duration_since(since) >= waits.grace => Self::Steady,
            Self::Retiring { since } => Self::Retiring { since },
        }
    }
}

/// Whether the authority that signs shall be followed by another.
pub(super) fn due(not_after: Timestamp, asked: Option<&str>, answered: Option<&str>, now: Timestamp) -> bool {
    asked.is_some_and(|asked| answered != Some(asked)) || now >= not_after - ROTATE_BEFORE
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    const WAITS: Waits = Waits { spread: Duration::from_secs(10), grace: Duration::from_secs(20) };
    const QUIET: Seen = Seen { due: false, untold: 0, unreplaced: 0 };
    const DUE: Seen = Seen { due: true, ..QUIET };
    const UNTOLD: Seen = Seen { untold: 1, ..QUIET };
    const UNREPLACED: Seen = Seen { unreplaced: 1, ..QUIET };

    #[test]
    fn each_phase_ends_when_its_condition_holds_and_falls_back_when_it_no_longer_does() {
        use Phase::{Introducing, Replacing, Retiring, Spreading, Steady};
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (spreading, retiring) = (Spreading { since: start }, Retiring { since: start });
        for (phase, seen, seconds, expected) in [
            (Steady, QUIET, 0, Steady),
            (Steady, UNTOLD, 0, Steady),
            (Steady, DUE, 0, Introducing),
            (Introducing, UNTOLD, 100, Introducing),
            (Introducing, QUIET, 7, Spreading { since: at(7) }),
            // Until the switch no certificate is to be replaced.
            (Introducing, UNREPLACED, 7, Spreading { since: at(7) }),
            (spreading, QUIET, 9, spreading),
            (spreading, QUIET, 10, Replacing),
            // A certificate that was made without the second authority, by a leader that did not know: all over again.
            (spreading, UNTOLD, 10, Introducing),
            (Replacing, UNREPLACED, 100, Replacing),
            (Replacing, UNTOLD, 100, Replacing),
            (Replacing, QUIET, 7, Retiring { since: at(7) }),
            (retiring, QUIET, 19, retiring),
            (retiring, UNREPLACED, 20, Replacing),
            (retiring, QUIET, 20, Steady),
            // Who asks again during a rotation is answered by the next one.
            (spreading, DUE, 9, spreading),
            (retiring, DUE, 20, Steady),
        ] {
            assert_eq!(phase.next(seen, WAITS, at(seconds)), expected, "{phase:?} {seen:?} {seconds}");
        }
    }

    #[test]
    fn a_restart_in_any_phase_repeats_the_wait_and_skips_nothing() {
        let now = Instant::now();
        for (phase, after) in [
            (Phase::Steady, Phase::Steady),
            (Phase::Introducing, Phase::Introducing),
            (Phase::Spreading { since: now }, Phase::Introducing),
            (Phase::Replacing, Phase::Replacing),
            (Phase::Retiring { since: now }, Phase::Replacing),
        ] {
            assert_eq!(Phase::of(phase.stored()), after);
        }
    }

    #[test]
    fn an_authority_is_replaced_a_month_before_its_end_and_once_for_each_new_word() {
        let end = Timestamp::from_second(1_000_000_000).unwrap();
        let days = |count: i64| end - SignedDuration::from_hours(24 * count);
        for (asked, answered, now, expected) in [
            (None, None, days(31), false),
            (None, None, days(30), true),
            (None, None, days(-400), true),
            (Some("1"), None, days(300), true),
            (Some("1"), Some("1"), days(300), false),
            (Some("2"), Some("1"), days(300), true),
            (None, Some("1"), days(300), false),
        ] {
            assert_eq!(due(end, asked, answered, now), expected, "{asked:?} {answered:?} {now}");
        }
    }
}
