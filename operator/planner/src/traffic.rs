//! What clients may ask for: routes with their backends, classes of traffic, tenants and quotas.
//! Values, and which of several routes has a name; which backend takes one request is the gateway's to ask.

mod acceptance;

use std::time::Duration;

use crate::names::ModelId;
use crate::units::MicroUsd;

pub use acceptance::{Acceptance, BackendState, Refusal, accept};

/// What clients call, and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The model name that clients send.
    pub model: String,
    /// Seconds since 1970: of two routes with one name the older has it.
    pub created: i64,
    pub backends: Vec<Backend>,
    pub classes: Vec<RouteClass>,
    /// Of requests that name no class.
    pub default_class: Option<String>,
    pub tenants: Vec<Tenant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub model: ModelId,
    /// Quality: the highest serves as long as it can; lower ones are what a request degrades to.
    pub tier: u32,
    /// Share of the requests of its tier; 0 takes none.
    pub weight: u32,
}

/// One class of traffic and its promise.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteClass {
    pub name: String,
    /// From the request's arrival to the last byte.
    pub latency: Duration,
    /// The share of requests that must be that fast, in percent.
    pub percentile: u32,
    pub priority: Priority,
    pub max_per_image: Option<MicroUsd>,
    pub overflow: Overflow,
}

/// The least goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// What becomes of a request that can't be answered in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It waits, and is late.
    Queue,
    /// It is refused at once.
    Shed,
    /// It is drawn with fewer steps or by a lower tier, as far down as this.
    Degrade { min_steps: Option<u32>, min_tier: Option<u32> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    pub name: String,
    /// Its share beside the other tenants' when capacity is short.
    pub weight: u32,
    /// Requests that ask for a higher one get this.
    pub max_priority: Priority,
    pub quotas: Vec<Quota>,
}

/// What a tenant may use in any window of this length; what is left out is not bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub window: Duration,
    pub images: Option<u64>,
    /// Millions of pixels × steps.
    pub megapixel_steps: Option<u64>,
    pub cost: Option<MicroUsd>,
}

/// One of these by their weights, for a number that is drawn evenly; `None` where none has a weight.
pub fn by_weight<'a>(backends: &[&'a Backend], drawn: u32) -> Option<&'a Backend> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // Of 2^32 numbers each backend gets its share, to one number.
    let mut at = (u64::from(drawn) * total) >> 32;
    backends.iter().copied().find(|backend| {
        let weight = u64::from(backend.weight);
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    })
}

impl Route {
    pub fn class(&self, name: &str) -> Option<&RouteClass> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// Backends that may take requests, the first to be asked first: the highest tier, then the greatest weight, then the
    /// order in which they are written.
    pub fn in_order(&self) -> Vec<&Backend> {
        let mut order: Vec<&Backend> = self.backends.iter().filter(|backend| backend.weight > 0).collect();
        order.sort_by_key(|backend| (std::cmp::Reverse(backend.tier), std::cmp::Reverse(backend.weight)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_are_shared_by_weight(weights in proptest::collection::vec(0u32..=1000, 1..16), drawn in any::<u32>()) {
            let of = |(n, weight): (usize, &u32)| Backend { model: ModelId::new(n.to_string()), tier: 1, weight: *weight };
            let backends: Vec<Backend> = weights.iter().enumerate().map(of).collect();
            let all: Vec<&Backend> = backends.iter().collect();
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            prop_assert_eq!(by_weight(&all, drawn).is_some(), total > 0);
            prop_assert!(by_weight(&all, drawn).is_none_or(|backend| backend.weight > 0));
            // Numbers drawn evenly over the whole range hit each backend as often as its weight says, to one draw.
            let draws: u32 = 1000;
            let hit = |name: &str| (0..draws).filter(|n| by_weight(&all, n * (u32::MAX / draws)).is_some_and(|b| b.model.as_str() == name)).count() as f64;
            for backend in backends.iter().filter(|_| total > 0) {
                let expected = f64::from(draws) * f64::from(backend.weight) / total as f64;
                prop_assert!((hit(backend.model.as_str()) - expected).abs() <= 2.0, "{} of {expected}", hit(backend.model.as_str()));
            }
        }
    }

    #[test]
    fn the_highest_tier_comes_first_then_the_greatest_weight_then_the_written_order() {
        let backend = |name: &str, tier, weight| Backend { model: ModelId::new(name), tier, weight };
        let route = Route {
            model: "m".into(),
            created: 0,
            backends: vec![
                backend("d/low", 1, 9),
                backend("d/b", 2, 1),
                backend("d/c", 2, 1),
                backend("d/a", 2, 5),
                backend("d/off", 3, 0),
            ],
            classes: Vec::new(),
            default_class: None,
            tenants: Vec::new(),
        };
        let order: Vec<&str> = route.in_order().iter().map(|backend| backend.model.as_str()).collect();
        assert_eq!(order, ["d/a", "d/b", "d/c", "d/low"]);
    }
}
