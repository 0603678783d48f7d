//! What others do: a request is bound to a replica when it arrives, and each replica draws in order of arrival.
//! A policy of this kind is one function from a request and the replicas' queues to a replica.

use std::collections::VecDeque;
use std::fmt;

use crate::dispatch::{Held, ReplicaIx, Worth};
use crate::simulate::policies::Policy;
use crate::simulate::world::{Act, Doing, Happening, Machine, TaskIx, World, index};
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
}

impl fmt::Debug for Immediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pick: _, lines } = self;
        f.debug_struct("Immediate").field("name", name).field("lines", lines).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Line {
    tasks: VecDeque<TaskIx>,
    free: Moment,
    /// What the replica will hold when it has drawn all of its queue.
    held: Held,
}

impl Immediate {
    pub fn new(name: &'static str, pick: Pick) -> Self {
        Self { name, pick, lines: Vec::new() }
    }

    fn seen(&self, world: &World<'_>, task: TaskIx) -> Vec<Queue> {
        let request = world.request(task);
        let queue = |(at, (machine, line)): (usize, (&Machine, &Line))| {
            let draws = request.adapters + request.work.at(machine.speed);
            let takes = draws + world.loads().of(&line.held, request.model);
            let length = line.tasks.len() + usize::from(machine.doing != Doing::Idle);
            Queue { replica: index(at), speed: machine.speed, length, free: line.free.max(world.now), takes, draws }
        };
        world.machines.iter().zip(&self.lines).enumerate().map(queue).collect()
    }
}

impl Policy for Immediate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn react(&mut self, world: &World<'_>, happening: Happening) -> Vec<Act> {
        for machine in &world.machines[self.lines.len()..] {
            self.lines.push(Line { tasks: VecDeque::new(), free: Moment::ORIGIN, held: machine.held });
        }
        match happening {
            Happening::Arrived(task) => {
                let seen = self.seen(world, task);
                let Some(replica) = (self.pick)(world, task, &seen) else { return vec![Act::Refuse { task }] };
                let model = world.request(task).model;
                let line = &mut self.lines[replica.0 as usize];
                line.free = seen[replica.0 as usize].free + seen[replica.0 as usize].takes;
                line.held.bring(model, &Worth::default());
                line.tasks.push_back(task);
                self.begin(world, replica)
            }
            Happening::Loaded(replica) => match world.machines[replica.0 as usize].loaded_for {
                Some(task) => vec![Act::Turn { replica, task }],
                None => self.begin(world, replica),
            },
            Happening::Drawn(replica, _) => self.begin(world, replica),
        }
    }
}

impl Immediate {
    fn begin(&mut self, world: &World<'_>, replica: ReplicaIx) -> Vec<Act> {
        let at = replica.0 as usize;
        if world.machines[at].doing != Doing::Idle {
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
