//! Picks an endpoint for one request: filter, score, pick; the caller books what was picked.
//! Knows queues, step times and prices; does not know HTTP or Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::latency;
use crate::names::{ModelId, ReplicaId};
use crate::units::MicroUsdPerHour;

/// One pod's address in the gateway, and what it last said.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub id: ReplicaId,
    pub price: MicroUsdPerHour,
    /// Models that answer there, with their measured step time.
    pub ready: BTreeMap<ModelId, Option<Duration>>,
    /// Models on their way there: worth waiting for.
    pub coming: BTreeSet<ModelId>,
    /// Pictures that wait or run there, and those sent since it last said so.
    pub queued: u32,
    pub queue_limit: u32,
    pub draining: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub model: &'a ModelId,
    pub pictures: u32,
    /// Model calls of one picture.
    pub steps: u32,
    /// Endpoints that failed this request already.
    pub tried: &'a BTreeSet<ReplicaId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    pub endpoint: ReplicaId,
    pub price: MicroUsdPerHour,
    /// Until the last picture is drawn, queueing included.
    pub finish: Duration,
}

/// Why nobody takes the request now. The order is that of hope: the greatest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// No pod holds the model or is told to.
    NoReplica,
    /// Every pod that could has failed this request.
    AllFailed,
    /// Pods that hold it are going away.
    Draining,
    /// A pod is loading it.
    Loading,
    /// Every pod that holds it has a full queue; room is expected after this time.
    QueueFull { wait: Duration },
}

/// How good an endpoint is: the least wins, and the fields are compared from the top down.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score<'a> {
    finish: Duration,
    price: MicroUsdPerHour,
    id: &'a ReplicaId,
}

/// Select without effects: the caller books.
pub fn pick<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>, ask: &Ask<'_>) -> Result<Pick, Rejection> {
    let mut best: Option<Score<'a>> = None;
    let mut hope = Rejection::NoReplica;
    for endpoint in endpoints {
        match filter(endpoint, ask) {
            Ok(step) => {
                let score = score(endpoint, step, ask);
                if best.as_ref().is_none_or(|best| score < *best) {
                    best = Some(score);
                }
            }
            Err(rejection) => hope = hope.max(rejection),
        }
    }
    let picked = best.map(|Score { finish, price, id }| Pick { endpoint: id.clone(), price, finish });
    picked.ok_or(hope)
}

fn filter(endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Option<Duration>, Rejection> {
    let Some(step) = endpoint.ready.get(ask.model) else {
        let loading = endpoint.coming.contains(ask.model) && !endpoint.draining;
        return Err(if loading { Rejection::Loading } else { Rejection::NoReplica });
    };
    if endpoint.draining {
        return Err(Rejection::Draining);
    }
    if ask.tried.contains(&endpoint.id) {
        return Err(Rejection::AllFailed);
    }
    if endpoint.queued.saturating_add(ask.pictures) > endpoint.queue_limit {
        return Err(Rejection::QueueFull { wait: latency::drawing(u64::from(ask.steps), *step) });
    }
    Ok(*step)
}

/// What waits there is taken to be like this request: the same steps at the same step time.
fn score<'a>(endpoint: &'a Endpoint, step: Option<Duration>, ask: &Ask<'_>) -> Score<'a> {
    let pictures = u64::from(endpoint.queued) + u64::from(ask.pictures);
    let finish = latency::drawing(pictures.saturating_mul(u64::from(ask.steps)), step);
    Score { finish, price: endpoint.price, id: &endpoint.id }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReplica => write!(f, "no pod serves the model now"),
            Self::AllFailed => write!(f, "every pod that serves the model failed this request"),
            Self::Draining => write!(f, "the pods that serve the model are being replaced"),
            Self::Loading => write!(f, "the model is being loaded"),
            Self::QueueFull { wait } => {
                write!(
                    f,
                    "every pod that serves the model has a full queue; about {:.1} s until one has room",
                    wait.as_secs_f64()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(id: &str, queued: u32, step_ms: u64) -> Endpoint {
        Endpoint {
            id: ReplicaId::new(id),
            price: MicroUsdPerHour::new(1),
            ready: [(ModelId::new("d/m"), Some(Duration::from_millis(step_ms)))].into(),
            coming: BTreeSet::new(),
            queued,
            queue_limit: 8,
            draining: false,
        }
    }

    fn ask<'a>(model: &'a ModelId, tried: &'a BTreeSet<ReplicaId>) -> Ask<'a> {
        Ask { model, pictures: 1, steps: 10, tried }
    }

    #[test]
    fn a_short_queue_on_a_slow_pod_beats_a_long_one_on_a_fast_pod_only_when_it_ends_earlier() {
        let (model, tried) = (ModelId::new("d/m"), BTreeSet::new());
        let (slow, fast) = (endpoint("slow", 0, 100), endpoint("fast", 3, 20));
        assert_eq!(pick([&slow, &fast], &ask(&model, &tried)).unwrap().endpoint.as_str(), "fast");
        let busy = endpoint("fast", 6, 20);
        assert_eq!(pick([&slow, &busy], &ask(&model, &tried)).unwrap().endpoint.as_str(), "slow");
    }

    #[test]
    fn at_the_same_finish_the_cheaper_pod_is_picked() {
        let (model, tried) = (ModelId::new("d/m"), BTreeSet::new());
        let dear = Endpoint { price: MicroUsdPerHour::new(9), ..endpoint("a", 0, 10) };
        let picked = pick([&dear, &endpoint("b", 0, 10)], &ask(&model, &tried)).unwrap();
        assert_eq!(picked.endpoint.as_str(), "b");
    }

    #[test]
    fn a_pod_that_failed_the_request_is_not_asked_again() {
        let (model, tried) = (ModelId::new("d/m"), BTreeSet::from([ReplicaId::new("a")]));
        let endpoints = [endpoint("a", 0, 1), endpoint("b", 5, 90)];
        assert_eq!(pick(&endpoints, &ask(&model, &tried)).unwrap().endpoint.as_str(), "b");
        assert_eq!(pick(&endpoints[..1], &ask(&model, &tried)), Err(Rejection::AllFailed));
    }

    #[test]
    fn the_most_hopeful_reason_is_told() {
        let (model, tried) = (ModelId::new("d/m"), BTreeSet::new());
        let full = endpoint("a", 8, 100);
        let gone = Endpoint { draining: true, ..endpoint("b", 0, 1) };
        let other = Endpoint { ready: BTreeMap::new(), ..endpoint("c", 0, 1) };
        let coming = Endpoint { coming: [model.clone()].into(), ..other.clone() };
        let ask = ask(&model, &tried);
        let full_queue = Rejection::QueueFull { wait: Duration::from_secs(1) };
        assert_eq!(pick([&full, &gone, &other], &ask), Err(full_queue));
        assert_eq!(pick([&coming, &gone], &ask), Err(Rejection::Loading));
        assert_eq!(pick([&gone, &other], &ask), Err(Rejection::Draining));
        assert_eq!(pick([&other], &ask), Err(Rejection::NoReplica));
        assert_eq!(pick([], &ask), Err(Rejection::NoReplica));
    }

    proptest! {
        #[test]
        fn what_is_picked_can_take_the_request(pods in proptest::collection::vec((0u32..10, 1u64..200, any::<bool>()), 0..12)) {
            let (model, tried) = (ModelId::new("d/m"), BTreeSet::new());
            let make = |(i, (queued, step, draining)): (usize, (u32, u64, bool))| {
                Endpoint { draining, ..endpoint(&i.to_string(), queued, step) }
            };
            let endpoints: Vec<Endpoint> = pods.into_iter().enumerate().map(make).collect();
            if let Ok(picked) = pick(&endpoints, &ask(&model, &tried)) {
                let endpoint = endpoints.iter().find(|endpoint| endpoint.id == picked.endpoint).unwrap();
                prop_assert!(!endpoint.draining && endpoint.queued < endpoint.queue_limit);
            }
        }
    }
}
