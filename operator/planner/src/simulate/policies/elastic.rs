//! Easel's autoscaler in the simulated fleet: shows it what the leader would see, and turns its decision into acts.

use crate::autoscaler::{Aim, Input, Memory, Observed, Pool, autoscale};
use crate::demand::Demand;
use crate::names::PoolName;
use crate::simulate::Scenario;
use crate::simulate::world::{Act, Doing, Happening, Machine, Phase, World, index};
use crate::time::{Moment, Span};

/// What an operator of the fleet can set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of requests that shall be in time.
    pub attainment: f64,
    /// Share of the need that the loss of the largest spot pool leaves.
    pub survives: f64,
}

impl Default for Settings {
    fn default() -> Self {
        // 95 %, and a little for what is learned late.
        Self { attainment: 0.953, survives: 0.5 }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Elastic {
    settings: Settings,
    memory: Memory,
}

/// A spot replica draws until this long before it goes: a look at the fleet, and a step of the largest requests.
const EMPTIED: Span = Span::from_micros(15_000_000);

impl Elastic {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, memory: Memory::default() }
    }

    pub(super) fn arrived(&mut self, work: Span, now: Moment) {
        self.memory.arrived(work.secs(), now);
    }

    pub(super) fn ended(&mut self, in_time: bool) {
        self.memory.ended(in_time, 1.0 - self.settings.attainment);
    }

    pub(super) fn scale(
        &mut self,
        world: &World<'_>,
        happening: Happening,
        demand: &Demand,
        placeless: f64,
        present: usize,
    ) -> Vec<Act> {
        let asleep = || !world.machines.iter().any(Machine::exists);
        let look = match happening {
            Happening::Tick | Happening::Lost(..) | Happening::Noticed(_) => true,
            Happening::Arrived(_) => asleep(),
            Happening::Loaded(_) | Happening::Drawn(..) | Happening::Ready(_) => false,
        };
        if !look || (!world.scenario.is_elastic() && world.scenario.faults.is_none()) {
            return Vec::new();
        }
        let places: Vec<usize> = (0..world.machines.len()).filter(|at| world.machines[*at].exists()).collect();
        let replicas: Vec<Observed> = places.iter().map(|at| observed(world, demand, *at)).collect();
        let pools = pools(world.scenario);
        let aim = Aim {
            misses: 1.0 - self.settings.attainment,
            load: world.scenario.load_from_store,
            survives: self.settings.survives,
        };
        let input = Input { pools: &pools, replicas: &replicas, aim, placeless, present };
        let (decision, memory) = autoscale(&input, &self.memory, world.now);
        self.memory = memory;
        let mut acts: Vec<Act> = decision.end.iter().map(|at| Act::End { replica: index(places[*at]) }).collect();
        for (pool, desired) in decision.desired.iter().enumerate() {
            let there = replicas.iter().filter(|replica| replica.pool == pool && !replica.leaving).count();
            acts.extend((there..*desired as usize).map(|_| Act::Start { pool }));
        }
        let going = places.iter().filter(|at| is_going(&world.machines[**at], world.now));
        acts.extend(going.map(|at| Act::End { replica: index(*at) }));
        acts
    }
}

/// Takes work: is there, and stays for a while.
pub(super) fn usable(machine: &Machine) -> bool {
    match machine.phase {
        Phase::Open | Phase::Reclaimed { .. } => true,
        Phase::Starting { .. } | Phase::Gone => false,
    }
}

fn is_going(machine: &Machine, now: Moment) -> bool {
    matches!(machine.phase, Phase::Reclaimed { at } if at.since(now) <= EMPTIED)
}

fn observed(world: &World<'_>, demand: &Demand, at: usize) -> Observed {
    let machine = &world.machines[at];
    // Loads a second that would be needed without it, times what each takes.
    let asked: f64 = machine.held.device().iter().map(|model| demand.per_second(*model, world.now)).sum();
    Observed {
        pool: machine.pool,
        leaving: matches!(machine.phase, Phase::Reclaimed { .. }),
        busy: machine.doing != Doing::Idle,
        worth: asked * world.scenario.load_from_store.secs(),
        since: machine.since,
    }
}

fn pools(scenario: &Scenario) -> Vec<Pool> {
    let pool = |spec: &crate::simulate::PoolSpec| Pool {
        name: PoolName::new(spec.name.clone()),
        price: spec.price,
        capacity: spec.capacity,
        speed: spec.speed,
        min: spec.min,
        max: spec.max,
        max_cost: None,
        spares: 0,
        start: spec.start,
    };
    scenario.pools.iter().map(pool).collect()
}
