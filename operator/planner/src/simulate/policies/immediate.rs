//! What others do: a request is bound to a replica when it arrives, and each replica draws in order of arrival.
//! A policy of this kind is one function from a request and the replicas' queues to a replica.

use std::collections::VecDeque;
use std::fmt;

use crate::dispatch::{Held, ReplicaIx, Worth};
use crate::simulate::policies::Policy;
use crate::simulate::world::{Act, Doing, Happening, Machine, Phase, Rules, TaskIx, World, index};
use crate::time::{Moment, Span};

/// A replica's queue as a router of this kind knows it.
#[derive(Clone, Debug)]
pub struct Queue {
    pub replica: ReplicaIx,
    pub speed: f64,
    /// Those that wait or are drawn.
    pub length: usize,
    /// When it will have drawn all of them.
    pub free: Moment,
    /// Until this request would be drawn there, loads included, once it is its turn.
    pub takes: Span,
    /// The same without the checkpoint's load.
    pub draws: Span,
}

/// Picks a queue, or refuses the request. It may remember what it picked.
pub type Pick = Box<dyn FnMut(&World<'_>, TaskIx, &[Queue]) -> Option<ReplicaIx>>;

pub struct Immediate {
    name: &'static str,
    pick: Pick,
    lines: Vec<Line>,
    /// Came while there was no replica.
    homeless: VecDeque<TaskIx>,
    scaler: Option<Box<dyn Scaler>>,
}

/// How many replicas there shall be, asked at every tick.
pub trait Scaler: fmt::Debug {
    fn tick(&self) -> Span;

    fn desired(&mut self, now: Moment, seen: Seen) -> usize;
}

/// What a scaler of this kind looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Requests that wait or are drawn.
    pub concurrency: usize,
    /// Replicas that take requests.
    pub ready: usize,
    /// Those, and the ones that start.
    pub ordered: usize,
}

impl fmt::Debug for Immediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pick: _, lines, homeless, scaler } = self;
        f.debug_struct("Immediate")
            .field("name", name)
            .field("lines", lines)
            .field("homeless", homeless)
            .field("scaler", scaler)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Line {
    tasks: VecDeque<TaskIx>,
    free: Moment,
    /// What the replica will hold when it has drawn all of its queue.
    held: Held,
    /// Takes nothing more, and goes when its queue is drawn.
    draining: bool,
}

impl Immediate {
    pub fn new(name: &'static str, pick: Pick) -> Self {
        Self { name, pick, lines: Vec::new(), homeless: VecDeque::new(), scaler: None }
    }

    pub fn scaled(name: &'static str, pick: Pick, scaler: Box<dyn Scaler>) -> Self {
        Self { scaler: Some(scaler), ..Self::new(name, pick) }
    }

    fn seen(&self, world: &World<'_>, task: TaskIx) -> Vec<Queue> {
        let request = world.request(task);
        let queue = |(at, (machine, line)): (usize, (&Machine, &Line))| {
            if !machine.is_open() || line.draining {
                return None;
            }
            let draws = request.adapters + request.work.at(machine.speed);
            let takes = draws + world.loads().of(&line.held, request.model);
            let length = line.tasks.len() + usize::from(machine.doing != Doing::Idle);
            Some(Queue {
                replica: index(at),
                speed: machine.speed,
                length,
                free: line.free.max(world.now),
                takes,
                draws,
            })
        };
        world.machines.iter().zip(&self.lines).enumerate().filter_map(queue).collect()
    }

    fn arrive(&mut self, world: &World<'_>, task: TaskIx) -> Vec<Act> {
        self.again(world, [task])
    }

    /// All of them look for a place; each replica begins once, however many have come to it.
    fn again(&mut self, world: &World<'_>, tasks: impl IntoIterator<Item = TaskIx>) -> Vec<Act> {
        let mut acts = Vec::new();
        for task in tasks {
            self.bind(world, task, &mut acts);
        }
        let lines = self.lines.len().min(world.machines.len());
        let idle = (0..lines).filter(|at| world.machines[*at].is_open()).map(index).collect::<Vec<_>>();
        acts.extend(idle.into_iter().flat_map(|replica| self.begin(world, replica)));
        acts
    }

    fn bind(&mut self, world: &World<'_>, task: TaskIx, acts: &mut Vec<Act>) {
        let seen = self.seen(world, task);
        if seen.is_empty() {
            self.homeless.push_back(task);
            return;
        }
        let picked = (self.pick)(world, task, &seen);
        let Some(queue) = seen.iter().find(|queue| Some(queue.replica) == picked) else {
            acts.push(Act::Refuse { task });
            return;
        };
        let line = &mut self.lines[queue.replica.0 as usize];
        line.free = queue.free + queue.takes;
        line.held.bring(world.request(task).model, &Worth::default());
        line.tasks.push_back(task);
    }

    /// An empty line for a replica that was not there before.
    fn open(&mut self, world: &World<'_>, replica: ReplicaIx) {
        let machine = &world.machines[replica.0 as usize];
        self.lines[replica.0 as usize] = Line::new(machine.held, world.now);
    }

    fn scale(&mut self, world: &World<'_>) -> Vec<Act> {
        let Some(scaler) = &mut self.scaler else { return everyone(world) };
        let waiting: usize = self.lines.iter().map(|line| line.tasks.len()).sum();
        let drawn = world.machines.iter().filter(|machine| machine.doing != Doing::Idle).count();
        let live = |phase: fn(Phase) -> bool, lines: &[Line]| {
            let live =
                world.machines.iter().zip(lines).filter(|(machine, line)| phase(machine.phase) && !line.draining);
            live.count()
        };
        let ready = live(|phase| phase == Phase::Open, &self.lines);
        let ordered = ready + live(|phase| matches!(phase, Phase::Starting { .. }), &self.lines);
        let concurrency = waiting + drawn + self.homeless.len();
        let desired = scaler.desired(world.now, Seen { concurrency, ready, ordered });
        let mut acts = if desired >= ordered { start(world, desired - ordered) } else { Vec::new() };
        self.drain(world, ordered.saturating_sub(desired));
        acts.extend(self.drained(world));
        acts
    }

    /// The emptiest take nothing more; those that still start can be given up at once.
    fn drain(&mut self, world: &World<'_>, surplus: usize) {
        let mut order: Vec<usize> =
            (0..world.machines.len()).filter(|at| world.machines[*at].exists() && !self.lines[*at].draining).collect();
        order.sort_by_key(|at| (world.machines[*at].is_open(), self.lines[*at].free));
        let least: usize = world.scenario.pools.iter().map(|pool| pool.min as usize).sum();
        let surplus = surplus.min(order.len().saturating_sub(least));
        for at in order.into_iter().take(surplus) {
            self.lines[at].draining = true;
        }
    }

    fn drained(&mut self, world: &World<'_>) -> Vec<Act> {
        let empty = |at: &usize| {
            let machine = &world.machines[*at];
            let idle = machine.exists() && machine.doing == Doing::Idle;
            idle && self.lines[*at].draining && self.lines[*at].tasks.is_empty()
        };
        let gone: Vec<ReplicaIx> = (0..world.machines.len()).filter(empty).map(index).collect();
        for replica in &gone {
            // The place may be given again at once.
            self.open(world, *replica);
        }
        gone.into_iter().map(|replica| Act::End { replica }).collect()
    }
}

impl Line {
    fn new(held: Held, now: Moment) -> Self {
        Self { tasks: VecDeque::new(), free: now, held, draining: false }
    }
}

/// Who does not scale has all the replicas that there may be.
fn everyone(world: &World<'_>) -> Vec<Act> {
    start(world, usize::MAX)
}

/// Of the cheapest pools that have room.
fn start(world: &World<'_>, mut more: usize) -> Vec<Act> {
    let mut pools: Vec<usize> = (0..world.scenario.pools.len()).collect();
    pools.sort_by_key(|at| world.scenario.pools[*at].price);
    let mut acts = Vec::new();
    for pool in pools {
        let there = world.machines.iter().filter(|machine| machine.pool == pool && machine.exists()).count();
        let room = (world.scenario.pools[pool].max as usize).saturating_sub(there).min(more);
        acts.extend((0..room).map(|_| Act::Start { pool }));
        more -= room;
    }
    acts
}

impl Policy for Immediate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rules(&self) -> Rules {
        let tick = self.scaler.as_ref().map_or(Span::from_secs(10.0), |scaler| scaler.tick());
        Rules { kept_every: None, tick }
    }

    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act> {
        for machine in &world.machines[self.lines.len()..] {
            self.lines.push(Line::new(machine.held, world.now));
        }
        match happening {
            Happening::Arrived(task) => self.arrive(world, task),
            Happening::Loaded(replica) => match world.machines[replica.0 as usize].loaded_for {
                Some(task) => vec![Act::Turn { replica, task }],
                None => self.begin(world, replica),
            },
            Happening::Drawn(replica, _) => self.begin(world, replica),
            Happening::Ready(replica) => {
                self.open(world, replica);
                let homeless = std::mem::take(&mut self.homeless);
                self.again(world, homeless)
            }
            Happening::Lost(replica, task) => {
                let waiting = std::mem::take(&mut self.lines[replica.0 as usize].tasks);
                self.open(world, replica);
                self.again(world, task.into_iter().chain(waiting))
            }
            // Kubernetes cordons the node: who is on it draws on until the end.
            Happening::Noticed(_) => Vec::new(),
            Happening::Tick => self.scale(world),
        }
    }
}

impl Immediate {
    fn begin(&mut self, world: &World<'_>, replica: ReplicaIx) -> Vec<Act> {
        let at = replica.0 as usize;
        if !world.machines[at].exists() || world.machines[at].doing != Doing::Idle {
            return Vec::new();
        }
        self.lines[at].tasks.pop_front().map(|task| Act::Turn { replica, task }).into_iter().collect()
    }
}

/// The ten-line policy that whatever ships must beat.
pub fn cheapest_feasible(world: &World<'_>, task: TaskIx, queues: &[Queue]) -> Option<ReplicaIx> {
    let deadline = world.request(task).deadline;
    let in_time = queues.iter().filter(|queue| queue.free + queue.takes <= deadline);
    let cost = |queue: &&Queue| (queue.takes.times(queue.speed), queue.free + queue.takes);
    in_time.min_by_key(cost).map(|queue| queue.replica)
}

pub fn shortest_delay(_: &World<'_>, _: TaskIx, queues: &[Queue]) -> Option<ReplicaIx> {
    queues.iter().min_by_key(|queue| queue.free + queue.takes).map(|queue| queue.replica)
}

pub fn least_request(_: &World<'_>, _: TaskIx, queues: &[Queue]) -> Option<ReplicaIx> {
    queues.iter().min_by_key(|queue| queue.length).map(|queue| queue.replica)
}
