//! Who decides in a simulated fleet: Easel's own planner, and what others do.
//! A policy sees the world and says what is done; it never changes the world by itself.

mod easel;
pub mod immediate;

use crate::simulate::World;
use crate::simulate::world::{Act, Happening};

pub use easel::Easel;
pub use immediate::Immediate;

pub trait Policy {
    fn name(&self) -> &'static str;

    /// What is done now, in this order.
    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act>;
}

/// Every policy by the name that `--policy` takes, with what it does.
pub const ALL: &[(&str, &str)] = &[
    ("easel", "late binding, planned residency, deadline order, put aside and resumed: what the gateway does"),
    ("cheapest-feasible", "where it is in time for the fewest speed-weighted seconds; refused where nowhere"),
    ("shortest-delay", "the earliest finish, loads counted"),
    ("least-request", "the fewest requests on a replica"),
];

/// The policy of a name.
pub fn by_name(name: &str, _seed: u64) -> Option<Box<dyn Policy>> {
    match name {
        "easel" => Some(Box::new(Easel::default())),
        "cheapest-feasible" => Some(Box::new(Immediate::new("cheapest-feasible", immediate::cheapest_feasible))),
        "shortest-delay" => Some(Box::new(Immediate::new("shortest-delay", immediate::shortest_delay))),
        "least-request" => Some(Box::new(Immediate::new("least-request", immediate::least_request))),
        _ => None,
    }
}
