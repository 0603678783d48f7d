//! Who leads: one decision over the Lease as it was read and the time since it last changed here.
//! Knows no client, and compares no clock but its own, so that nodes may disagree about the time.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// What a Lease says of its holder. Two equal records mean that nobody wrote in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub holder: Option<String>,
    /// `leaseTransitions`: the term of whoever holds it.
    pub term: u64,
    renewed: Option<Timestamp>,
}

/// A record and when this process first saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    record: Record,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// There is no Lease, or nobody holds it, or its holder has been silent for its whole duration.
    Acquire { term: u64 },
    /// It is ours.
    Renew { term: u64 },
    /// Another holds it.
    StandBy,
}

impl Record {
    pub(super) fn read(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            term: spec.lease_transitions.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            renewed: spec.renew_time.map(|MicroTime(time)| time),
        }
    }
}

impl Seen {
    pub(super) fn term(&self) -> u64 {
        self.record.term
    }

    /// The record as it is now known: its age starts over when it changed.
    pub(super) fn update(seen: Option<Self>, record: Record, now: Instant) -> Self {
        match seen {
            Some(seen) if seen.record == record => seen,
            Some(_) | None => Self { record, since: now },
        }
    }
}

/// Who asks: a name that no other process has, and the term that it leads. A process that has stepped down starts a new
/// term even if the Lease still names it, because it numbers its residencies from the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub name: &'a str,
    pub leads: Option<u64>,
}

/// `floor` is the highest term that is known otherwise, from pods' reports or from a Lease that is gone: a term must be
/// above it, or pods refuse its residency. Only a Lease that was deleted can be behind it.
pub(super) fn decide(seen: Option<&Seen>, me: Candidate<'_>, floor: u64, duration: Duration, now: Instant) -> Decision {
    let Some(Seen { record, since }) = seen else {
        return Decision::Acquire { term: floor + 1 };
    };
    let next = Decision::Acquire { term: record.term.max(floor) + 1 };
    match &record.holder {
        None => next,
        Some(holder) if holder == me.name && me.leads == Some(record.term) && record.term > floor => {
            Decision::Renew { term: record.term }
        }
        Some(holder) if holder == me.name => next,
        Some(_) if now.duration_since(*since) >= duration => next,
        Some(_) => Decision::StandBy,
    }
}

/// The Lease to write for a decision. `previous` carries the resourceVersion that makes a race fail.
pub(super) fn written(
    previous: Option<&Lease>,
    holder: Option<&str>,
    term: u64,
    duration: Duration,
    now: Timestamp,
) -> Lease {
    let before = previous.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let now = MicroTime(now);
    let term_before = before.lease_transitions.and_then(|n| u64::try_from(n).ok());
    let same = before.holder_identity.as_deref() == holder && term_before == Some(term);
    Lease {
        metadata: previous.map(|lease| lease.metadata.clone()).unwrap_or_default(),
        spec: Some(LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_transitions: Some(i32::try_from(term).unwrap_or(i32::MAX)),
            lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: if same { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(6);
    const ME: Candidate<'_> = Candidate { name: "me", leads: Some(4) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(holder: Option<&str>, term: u64, renewed: i64) -> Record {
        Record { holder: holder.map(str::to_owned), term, renewed: Some(at(renewed)) }
    }

    fn ask(record: Record, age: u64, floor: u64) -> Decision {
        let now = Instant::now();
        let seen = Seen::update(None, record, now);
        decide(Some(&seen), ME, floor, DURATION, now + Duration::from_secs(age))
    }

    #[test]
    fn who_leads_is_decided_by_holder_age_and_floor() {
        for (holder, age, floor, expected) in [
            (Some("me"), 0, 0, Decision::Renew { term: 4 }),
            (Some("me"), 60, 0, Decision::Renew { term: 4 }),
            (Some("me"), 0, 4, Decision::Acquire { term: 5 }),
            (Some("other"), 5, 0, Decision::StandBy),
            (Some("other"), 6, 0, Decision::Acquire { term: 5 }),
            (Some("other"), 6, 9, Decision::Acquire { term: 10 }),
            (None, 0, 0, Decision::Acquire { term: 5 }),
        ] {
            assert_eq!(ask(record(holder, 4, 0), age, floor), expected, "{holder:?} {age} {floor}");
        }
        assert_eq!(decide(None, ME, 0, DURATION, Instant::now()), Decision::Acquire { term: 1 });
        assert_eq!(decide(None, ME, 7, DURATION, Instant::now()), Decision::Acquire { term: 8 });
    }

    #[test]
    fn who_has_stepped_down_starts_a_new_term_even_if_the_lease_still_names_it() {
        let now = Instant::now();
        let seen = Seen::update(None, record(Some("me"), 4, 0), now);
        let me = Candidate { leads: None, ..ME };
        assert_eq!(decide(Some(&seen), me, 0, DURATION, now), Decision::Acquire { term: 5 });
    }

    #[test]
    fn a_renewed_lease_is_young_again_whatever_its_clock_says() {
        let start = Instant::now();
        let seen = Seen::update(None, record(Some("other"), 1, 100), start);
        let later = start + DURATION;
        let same = Seen::update(Some(seen.clone()), record(Some("other"), 1, 100), later);
        assert_eq!(decide(Some(&same), ME, 0, DURATION, later), Decision::Acquire { term: 2 });
        // Its clock went backwards; it was written all the same.
        let renewed = Seen::update(Some(seen), record(Some("other"), 1, 7), later);
        assert_eq!(decide(Some(&renewed), ME, 0, DURATION, later), Decision::StandBy);
    }

    #[test]
    fn a_written_lease_reads_back_and_keeps_the_version_that_it_was_read_at() {
        let mut read = written(None, Some("other"), 3, DURATION, at(1));
        read.metadata.resource_version = Some("42".into());
        let lease = written(Some(&read), Some("me"), 4, DURATION, at(2));
        assert_eq!(lease.metadata.resource_version.as_deref(), Some("42"));
        assert_eq!((Record::read(&lease).holder.as_deref(), Record::read(&lease).term), (Some("me"), 4));
        let renewed = written(Some(&lease), Some("me"), 4, DURATION, at(3));
        assert_eq!(renewed.spec.unwrap().acquire_time, lease.spec.unwrap().acquire_time);
    }

    #[test]
    fn a_released_lease_has_no_holder() {
        let lease = written(None, None, 3, DURATION, at(1));
        assert_eq!(Record::read(&lease).holder, None);
    }
}
