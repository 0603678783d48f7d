//! A discrete-event run of the planner's own functions over a trace, in virtual time: what would have happened.
//! Owns the simulated fleet, its clock and its books; takes no decision that the real fleet would take.

mod arrivals;
mod bound;
mod faults;
mod generate;
mod machine;
pub mod money;
mod outcome;
pub mod policies;
mod scenario;
mod world;

use std::collections::BTreeMap;

use crate::demand::ModelIx;
use crate::time::{Moment, Span};

pub use arrivals::{requests, steady_rate};
pub use bound::bound;
pub use faults::{Fault, FaultKind, Faults, Rates};
pub use generate::generate;
pub use machine::{Doing, Machine, Phase};
pub use outcome::{Bucket, ModelShare, Outcome};
pub use policies::Policy;
pub use scenario::{Arrivals, Curve, Execution, PoolSpec, Process, Scenario, ScenarioError, Slo};
pub use world::{Act, Happening, Rules, World};

/// One row of a trace, as far as the simulator looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub arrival: Moment,
    pub model: String,
    pub user: String,
    pub loras: u32,
    pub images: u32,
    pub steps: u32,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub arrival: Moment,
    pub model: ModelIx,
    pub images: u32,
    pub steps: u32,
    /// Drawing at speed 1.
    pub work: Span,
    pub adapters: Span,
    pub deadline: Moment,
}

/// Everything that arrives, and the names of models in the order of their popularity: the most popular is number 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    pub requests: Vec<Request>,
    pub models: Vec<String>,
}

/// Runs it all. The same scenario, load, policy and seed give the same outcome to the last digit.
pub fn simulate(scenario: &Scenario, load: &Load, policy: &mut dyn Policy) -> Outcome {
    let mut world = World::new(scenario, load, policy.rules());
    while let Some(happening) = world.advance() {
        for act in policy.react(&world, happening) {
            world.act(act);
        }
    }
    outcome::outcome(&world, policy.name())
}

/// Models by how often they are asked for; equals by name.
fn by_popularity<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut order: Vec<(&str, u32)> = counts.into_iter().collect();
    order.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    order.into_iter().map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests;
