//! Who decides in a simulated fleet: Easel's own planner, and what others do.
//! A policy sees the world and says what is done; it never changes the world by itself.

mod easel;
mod elastic;
pub mod immediate;
mod partition;
mod routers;
pub mod scalers;

use crate::simulate::World;
use crate::simulate::world::{Act, Happening, Rules};
use crate::time::Span;

pub use easel::Easel;
pub use elastic::Settings;
pub use immediate::Immediate;

pub trait Policy {
    fn name(&self) -> &'static str;

    /// Other gateways' pods keep nothing of a drawing that its pod did not finish.
    fn rules(&self) -> Rules {
        Rules { kept_every: None, tick: Span::from_secs(10.0) }
    }

    /// What is done now, in this order.
    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act>;
}

/// Every policy by the name that `--policy` takes, with what it does.
pub const ALL: &[(&str, &str)] = &[
    ("easel", "late binding, planned residency, deadline order, put aside and resumed: what the gateway does"),
    ("cheapest-feasible", "where it is in time for the fewest speed-weighted seconds; refused where nowhere"),
    ("shortest-delay", "the earliest finish, loads counted"),
    ("shortest-delay-blind", "the earliest finish, as if every checkpoint were everywhere"),
    ("least-request", "the fewest requests on a replica"),
    ("power-of-two", "the fewer requests of two replicas that were drawn by lot"),
    ("round-robin", "one replica after the other"),
    ("random", "any replica"),
    ("hash-bounded-load", "the same model to the same replica, unless its queue is 1.25 times the average"),
    ("static-partition", "one model a replica, by the models' share of the work; models without one are refused"),
    ("knative", "Knative's autoscaler with its defaults; routed by shortest-delay"),
    ("hpa", "Kubernetes' autoscaler on requests a replica, with its defaults; routed by shortest-delay"),
    ("keda", "KEDA's defaults: hpa, and 0 to 1 and back; routed by shortest-delay"),
];

/// The policy of a name.
pub fn by_name(name: &str, seed: u64) -> Option<Box<dyn Policy>> {
    let (name, _) = *ALL.iter().find(|(known, _)| *known == name)?;
    let pick: immediate::Pick = match name {
        "easel" => return Some(Box::new(Easel::default())),
        "cheapest-feasible" => Box::new(immediate::cheapest_feasible),
        "shortest-delay" => Box::new(immediate::shortest_delay),
        "shortest-delay-blind" => routers::shortest_delay_blind(),
        "least-request" => Box::new(immediate::least_request),
        "power-of-two" => routers::power_of_two(seed),
        "round-robin" => routers::round_robin(),
        "random" => routers::random(seed),
        "hash-bounded-load" => routers::hash_bounded_load(),
        "static-partition" => partition::static_partition(),
        "knative" => return Some(scaled("knative", Box::new(scalers::Kpa::default()))),
        "hpa" => return Some(scaled("hpa", Box::new(scalers::Hpa::default()))),
        "keda" => return Some(scaled("keda", Box::new(scalers::Keda::default()))),
        _ => return None,
    };
    Some(Box::new(Immediate::new(name, pick)))
}

/// A scaler of requests, beside the better of the routers that know nothing of the future.
pub fn scaled(name: &'static str, scaler: Box<dyn immediate::Scaler>) -> Box<dyn Policy> {
    Box::new(Immediate::scaled(name, Box::new(immediate::shortest_delay), scaler))
}
