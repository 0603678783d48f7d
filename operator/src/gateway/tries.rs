//! What one request has been through: which pods failed it, how, and whether asking on is worth it.
//! Knows faults, not how they came about; waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use easel_api::error::ApiError;
use easel_planner::{ModelId, ReplicaId};
use tokio::time::Instant;

use crate::gateway::metrics::FaultReason;
use crate::routing_table::RoutingTable;

/// A request during which two pods died is taken to be what kills them.
const MAX_DEATHS: u32 = 2;
/// A pod that can't be reached, or is about to go: asked again after this time, doubling, if there is no other.
const REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// What came of asking one pod, if not pictures.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection: it has seen nothing of the request.
    Unreachable(String),
    /// 429.
    Busy,
    /// 503: takes nothing new.
    Draining,
    /// It goes, and has sent what it had of the pictures.
    Moved,
    /// 404: its models have changed since it last reported.
    NotResident,
    /// The connection broke after the request was sent: the pod may have died of it.
    Lost(String),
    /// It answered, but with a failure of its own.
    Failed(String),
    /// The request is wrong, and will be on every pod.
    Refused(ApiError),
    /// The deadline came first.
    Late,
}

#[derive(Debug, Default)]
pub(super) struct Tries {
    resting: BTreeMap<ReplicaId, Rest>,
    /// How often it was sent.
    pub(super) attempts: u32,
    deaths: u32,
    failures: u32,
    /// Of those that are no pod's failure.
    bounces: u32,
    /// Why the last pod that began did not finish.
    last: String,
}

/// How long a pod is not asked again by this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Until(Instant),
    ForGood,
}

impl Fault {
    pub(super) fn reason(&self) -> FaultReason {
        match self {
            Self::Unreachable(_) => FaultReason::Unreachable,
            Self::Busy => FaultReason::Busy,
            Self::Draining => FaultReason::Draining,
            Self::Moved => FaultReason::Moved,
            Self::NotResident => FaultReason::NotResident,
            Self::Lost(_) => FaultReason::Lost,
            Self::Failed(_) => FaultReason::Failed,
            Self::Refused(_) => FaultReason::Refused,
            Self::Late => FaultReason::Late,
        }
    }

    /// For the log.
    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Unreachable(cause) | Self::Lost(cause) | Self::Failed(cause) => cause,
            Self::Refused(error) => &error.message,
            Self::Busy | Self::Draining | Self::Moved | Self::NotResident | Self::Late => "",
        }
    }
}

impl Tries {
    /// Takes note of a fault; an error ends the request.
    pub(super) fn note(
        &mut self,
        pod: &ReplicaId,
        fault: Fault,
        max_attempts: u32,
        now: Instant,
    ) -> Result<(), ApiError> {
        let rest = match fault {
            Fault::Refused(error) => return Err(error),
            Fault::Late => return Err(ApiError::deadline("the deadline came before the picture was finished")),
            // The desk keeps everybody off it for a while.
            Fault::Busy => return Ok(()),
            Fault::Unreachable(_) | Fault::Draining | Fault::Moved | Fault::NotResident => self.bounce(now),
            Fault::Lost(cause) => {
                self.deaths += 1;
                self.last = cause;
                Rest::Until(now + LONGEST_REST)
            }
            Fault::Failed(cause) => {
                self.failures += 1;
                self.last = cause;
                Rest::ForGood
            }
        };
        self.resting.insert(pod.clone(), rest);
        if self.deaths >= MAX_DEATHS {
            return Err(self.quarantined());
        }
        if self.deaths + self.failures >= max_attempts {
            return Err(self.given_up());
        }
        Ok(())
    }

    fn bounce(&mut self, now: Instant) -> Rest {
        let rest = REST.saturating_mul(1 << self.bounces.min(5)).min(LONGEST_REST);
        self.bounces += 1;
        Rest::Until(now + rest)
    }

    /// The pods that shall not be asked now.
    pub(super) fn tried(&self, now: Instant) -> BTreeSet<ReplicaId> {
        let resting = |rest: &Rest| match rest {
            Rest::Until(until) => *until > now,
            Rest::ForGood => true,
        };
        self.resting.iter().filter(|(_, rest)| resting(rest)).map(|(pod, _)| pod.clone()).collect()
    }

    /// When the next pod may be asked again.
    pub(super) fn next_rest(&self, now: Instant) -> Option<Instant> {
        let until = |rest: &Rest| match rest {
            Rest::Until(until) => Some(*until),
            Rest::ForGood => None,
        };
        self.resting.values().filter_map(until).filter(|until| *until > now).min()
    }

    /// A pod that was seen without the model has a new life when it is seen with it again: a container that
    /// restarted in its pod has the same name and address.
    pub(super) fn forgive(&mut self, table: &RoutingTable, model: &ModelId) {
        let serves = |pod: &ReplicaId| table.pods.get(pod).is_some_and(|pod| pod.endpoint.ready.contains_key(model));
        self.resting.retain(|pod, _| serves(pod));
    }

    /// With every pod that serves the model out for good, waiting would only make the same answer late.
    pub(super) fn all_failed(&self) -> Option<ApiError> {
        let for_good = !self.resting.is_empty() && self.resting.values().all(|rest| *rest == Rest::ForGood);
        for_good.then(|| self.given_up())
    }

    /// Some pod's work has been lost already: such a request waits for room whatever the bound of waiting ones.
    pub(super) fn accepted(&self) -> bool {
        self.attempts > 0
    }

    fn given_up(&self) -> ApiError {
        let failed = self.deaths + self.failures;
        ApiError::upstream(format!("the request failed on {failed} pod(s), the last time because {}", self.last))
    }

    fn quarantined(&self) -> ApiError {
        let message = format!("{} pods were lost while they drew this request, so it is not tried again", self.deaths);
        ApiError { code: Some("request_quarantined".into()), ..ApiError::upstream(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Fault {
        Fault::Lost("reset".into())
    }

    #[tokio::test]
    async fn two_lost_pods_quarantine_a_request_and_one_does_not() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        assert!(tries.note(&ReplicaId::new("a"), lost(), 5, now).is_ok());
        let error = tries.note(&ReplicaId::new("b"), lost(), 5, now).unwrap_err();
        assert_eq!((error.status, error.code.as_deref()), (502, Some("request_quarantined")));
    }

    #[tokio::test]
    async fn a_request_may_move_as_often_as_pods_go() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for index in 0..20 {
            let pod = ReplicaId::new(format!("pod-{index}"));
            tries.note(&pod, Fault::Moved, 1, now).unwrap();
            assert!(tries.tried(now).contains(&pod), "it goes, so it is not asked at once");
        }
    }

    #[tokio::test]
    async fn an_unreachable_pod_rests_longer_each_time_and_is_never_given_up() {
        let (mut tries, mut now, pod) = (Tries::default(), Instant::now(), ReplicaId::new("a"));
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            tries.note(&pod, Fault::Unreachable("refused".into()), 5, now).unwrap();
            let rest = tries.next_rest(now).unwrap() - now;
            assert!(rest >= last && rest <= LONGEST_REST);
            assert_eq!(tries.tried(now).len(), 1);
            now += rest;
            assert!(tries.tried(now).is_empty());
            last = rest;
        }
        assert_eq!(tries.all_failed(), None);
    }

    #[tokio::test]
    async fn a_pod_that_answered_500_is_not_asked_again_and_ends_the_request_when_it_is_the_only_one() {
        let (mut tries, now, pod) = (Tries::default(), Instant::now(), ReplicaId::new("a"));
        tries.note(&pod, Fault::Failed("out of memory".into()), 5, now).unwrap();
        assert!(tries.tried(now + Duration::from_hours(1)).contains(&pod));
        assert!(tries.all_failed().unwrap().message.contains("out of memory"));
        tries.forgive(&RoutingTable::default(), &ModelId::new("d/m"));
        assert!(tries.tried(now).is_empty(), "a pod that went away may come back healthy");
    }
}
