//! The simulated fleet: replicas that load, draw and are put aside, requests on their way, and the clock.
//! Does what a policy says, as a pod would; refuses to know why.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::demand::ModelIx;
use crate::dispatch::{Loads, ReplicaIx, Worth};
use crate::simulate::faults::{FaultKind, Stream, Target};
use crate::simulate::{Load, Request, Scenario};
use crate::time::{Moment, Span};

mod fleet;

pub(crate) use crate::simulate::machine::{Doing, Machine, Phase};

/// A request by its place in the load.
pub(crate) type TaskIx = usize;

/// What a policy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    Arrived(TaskIx),
    Loaded(ReplicaIx),
    Drawn(ReplicaIx, TaskIx),
    /// A replica that was ordered can load and draw.
    Ready(ReplicaIx),
    /// A spot replica will be gone soon: it is to be emptied.
    Noticed(ReplicaIx),
    /// It is gone, with what it held; whom it drew or loaded for has to be drawn elsewhere.
    Lost(ReplicaIx, Option<TaskIx>),
    /// Nothing: the policy is asked from time to time.
    Tick,
}

/// What a policy has done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Turns to a request: loads what is missing, or draws. What it draws now is put aside and keeps its whole steps.
    Turn {
        replica: ReplicaIx,
        task: TaskIx,
    },
    /// Loads ahead of demand.
    Fetch {
        replica: ReplicaIx,
        model: ModelIx,
    },
    Refuse {
        task: TaskIx,
    },
    /// Orders a replica of a pool, by its place in the scenario; ignored where the pool has its most.
    Start {
        pool: usize,
    },
    /// Gives a replica up. What it draws is put aside and keeps its whole steps.
    End {
        replica: ReplicaIx,
    },
    /// What the fleet's checkpoints are worth now, for whoever has to leave a device.
    Value(Worth),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Underway,
    Drawn(Moment),
    Refused,
}

#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub left: Span,
    pub warm: Option<ReplicaIx>,
    pub fate: Fate,
    /// Drawing seconds × price went here.
    pub drawn_on: Option<ReplicaIx>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Done { replica: ReplicaIx, turn: u32 },
    Arrival(TaskIx),
    Ready { replica: ReplicaIx, life: u32 },
    Reclaimed { replica: ReplicaIx, life: u32 },
    Quick { replica: ReplicaIx, life: u32 },
    Fault,
    Tick,
}

#[derive(Debug)]
pub struct World<'a> {
    pub scenario: &'a Scenario,
    pub load: &'a Load,
    pub now: Moment,
    pub machines: Vec<Machine>,
    pub tasks: Vec<Task>,
    pub switches: u64,
    pub fetches: u64,
    pub put_aside: u64,
    /// Faults that hit a replica, and requests that were being drawn by one that was lost.
    pub faults_hit: u64,
    pub retried: u64,
    pub(super) worth: Worth,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    sequence: u64,
    arrived: usize,
    /// Requests that have not ended, those to come included.
    underway: usize,
    rules: Rules,
    faults: Stream,
    fault: Option<(Target, FaultKind)>,
}

/// What a policy's pods can do, and how often it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A pod that dies loses at most so many steps of what it draws; all of them where it keeps none.
    pub kept_every: Option<u32>,
    pub tick: Span,
}

/// A policy that has not drawn everything a day after the last arrival never will: what is left counts as lost.
const PATIENCE: Span = Span::from_micros(86_400_000_000);

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario, load: &'a Load, rules: Rules) -> Self {
        let tasks = load.requests.iter().map(|request| Task {
            left: request.work,
            warm: None,
            fate: Fate::Underway,
            drawn_on: None,
        });
        let mut world = Self {
            scenario,
            load,
            now: Moment::ORIGIN,
            machines: fleet::at_the_start(scenario, load),
            tasks: tasks.collect(),
            switches: 0,
            fetches: 0,
            put_aside: 0,
            faults_hit: 0,
            retried: 0,
            worth: Worth::default(),
            events: BinaryHeap::new(),
            sequence: 0,
            arrived: 0,
            underway: load.requests.len(),
            rules,
            faults: Stream::new(scenario),
            fault: None,
        };
        world.announce();
        world.expect_fault();
        if scenario.is_elastic() || !scenario.faults.is_none() {
            world.push(Moment::ORIGIN, Event::Tick);
        }
        world
    }

    pub fn loads(&self) -> Loads {
        Loads { from_store: self.scenario.load_from_store, from_host: self.scenario.load_from_host }
    }

    pub fn request(&self, task: TaskIx) -> &'a Request {
        &self.load.requests[task]
    }

    /// Goes on to what happens next; `None` once every request has ended.
    pub fn advance(&mut self) -> Option<Happening> {
        while self.underway > 0
            && let Some(Reverse((at, _, event))) = self.events.pop()
        {
            if self.is_void(event) {
                continue;
            }
            if self.load.requests.last().is_some_and(|last| at > last.arrival + PATIENCE) {
                break;
            }
            self.now = at;
            if let Some(happening) = self.happen(event) {
                return Some(happening);
            }
        }
        self.close_books();
        None
    }

    /// What was expected of a replica that does something else by now.
    fn is_void(&self, event: Event) -> bool {
        match event {
            Event::Done { replica, turn } => self.machine(replica).turn != turn,
            Event::Ready { replica, life } | Event::Reclaimed { replica, life } | Event::Quick { replica, life } => {
                self.machine(replica).life != life
            }
            Event::Arrival(_) | Event::Fault | Event::Tick => false,
        }
    }

    fn happen(&mut self, event: Event) -> Option<Happening> {
        match event {
            Event::Arrival(task) => {
                self.announce();
                Some(Happening::Arrived(task))
            }
            Event::Done { replica, .. } => Some(self.done(replica)),
            Event::Ready { replica, .. } => {
                self.machine_mut(replica).phase = Phase::Open;
                Some(Happening::Ready(replica))
            }
            Event::Reclaimed { replica, .. } => Some(self.lose(replica)),
            Event::Quick { replica, .. } => {
                let speed = self.scenario.pools[self.machine(replica).pool].speed;
                self.change_speed(replica, speed);
                None
            }
            Event::Fault => {
                let hit = self.fault.take();
                self.expect_fault();
                hit.and_then(|(target, kind)| self.hit(target, kind))
            }
            Event::Tick => {
                self.push(self.now + self.rules.tick, Event::Tick);
                self.learn_speeds();
                Some(Happening::Tick)
            }
        }
    }

    pub fn act(&mut self, act: Act) {
        match act {
            Act::Turn { replica, task } => self.turn(replica, task),
            Act::Fetch { replica, model } => self.fetch(replica, model),
            Act::Refuse { task } => {
                self.put_aside_if(|doing| matches!(doing, Doing::Drawing { task: drawn, .. } if *drawn == task));
                self.tasks[task].fate = Fate::Refused;
                self.underway -= 1;
            }
            Act::Start { pool } => self.start(pool),
            Act::End { replica } => {
                self.stop_drawing(replica);
                let now = self.now;
                self.machine_mut(replica).end(now);
            }
            Act::Value(worth) => self.worth = worth,
        }
    }

    /// One arrival lies in the heap at a time: a trace may be long.
    fn announce(&mut self) {
        if let Some(request) = self.load.requests.get(self.arrived) {
            self.push(request.arrival, Event::Arrival(self.arrived));
            self.arrived += 1;
        }
    }

    pub(super) fn push(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn done(&mut self, replica: ReplicaIx) -> Happening {
        let machine = &mut self.machines[replica.0 as usize];
        match std::mem::replace(&mut machine.doing, Doing::Idle) {
            Doing::Drawing { task, since } => {
                machine.books.drawing += self.now.since(since);
                machine.speed = machine.real_speed;
                self.underway -= 1;
                self.tasks[task].fate = Fate::Drawn(self.now);
                self.tasks[task].drawn_on = Some(replica);
                Happening::Drawn(replica, task)
            }
            Doing::Loading { task, since, .. } => {
                machine.books.loading += self.now.since(since);
                machine.loaded_for = task;
                Happening::Loaded(replica)
            }
            Doing::Idle => Happening::Loaded(replica),
        }
    }

    fn turn(&mut self, replica: ReplicaIx, task: TaskIx) {
        self.stop_drawing(replica);
        self.break_off(replica);
        let request = self.request(task);
        let loads = self.loads();
        let machine = &mut self.machines[replica.0 as usize];
        let mut loading = loads.of(&machine.held, request.model);
        self.switches += u64::from(machine.held.bring(request.model, &self.worth));
        if self.tasks[task].warm != Some(replica) {
            loading += request.adapters;
            self.tasks[task].warm = Some(replica);
        }
        if loading > Span::ZERO {
            self.begin_load(replica, loading, Some(task));
        } else {
            let left = self.tasks[task].left.at(machine.real_speed);
            machine.doing = Doing::Drawing { task, since: self.now };
            self.expect(replica, left);
        }
    }

    fn fetch(&mut self, replica: ReplicaIx, model: ModelIx) {
        let loads = self.loads();
        let machine = &mut self.machines[replica.0 as usize];
        let loading = loads.of(&machine.held, model);
        machine.held.bring(model, &self.worth);
        self.fetches += 1;
        self.begin_load(replica, loading, None);
    }

    fn begin_load(&mut self, replica: ReplicaIx, loading: Span, task: Option<TaskIx>) {
        let machine = &mut self.machines[replica.0 as usize];
        let loading = machine.loading(loading);
        machine.doing = Doing::Loading { since: self.now, until: self.now + loading, task };
        self.expect(replica, loading);
    }

    pub(super) fn expect(&mut self, replica: ReplicaIx, after: Span) {
        let machine = &mut self.machines[replica.0 as usize];
        machine.turn += 1;
        let turn = machine.turn;
        self.push(self.now + after, Event::Done { replica, turn });
    }

    pub(super) fn stop_drawing(&mut self, replica: ReplicaIx) {
        let machine = &mut self.machines[replica.0 as usize];
        let Doing::Drawing { task, since } = machine.doing else { return };
        machine.books.drawing += self.now.since(since);
        machine.doing = Doing::Idle;
        machine.turn += 1;
        self.tasks[task].left = self.left(replica, task, since);
        self.put_aside += 1;
    }

    /// A load ahead of demand gives way; one for a request has ended before anybody is turned to.
    fn break_off(&mut self, replica: ReplicaIx) {
        let machine = &mut self.machines[replica.0 as usize];
        if let Doing::Loading { since, .. } = machine.doing {
            machine.books.loading += self.now.since(since);
            machine.held.break_off();
            machine.doing = Doing::Idle;
            machine.turn += 1;
        }
    }

    /// What the request that a replica draws would still need elsewhere: its whole steps count.
    pub fn left_if_put_aside(&self, replica: ReplicaIx) -> Span {
        match self.machines[replica.0 as usize].doing {
            Doing::Drawing { task, since } => self.left(replica, task, since),
            Doing::Idle | Doing::Loading { .. } => Span::ZERO,
        }
    }

    fn left(&self, replica: ReplicaIx, task: TaskIx, since: Moment) -> Span {
        let request = self.request(task);
        let step = request.work.times(1.0 / f64::from(request.steps.max(1)));
        let before = self.tasks[task].left;
        let drawn = self.now.since(since).times(self.machines[replica.0 as usize].real_speed);
        before.less(drawn).whole(step).min(before)
    }

    fn put_aside_if(&mut self, which: impl Fn(&Doing) -> bool) {
        if let Some(at) = self.machines.iter().position(|machine| which(&machine.doing)) {
            self.stop_drawing(index(at));
        }
    }

    fn close_books(&mut self) {
        for machine in &mut self.machines {
            machine.settle(self.now);
            machine.books.close(self.now);
        }
    }

    fn machine(&self, replica: ReplicaIx) -> &Machine {
        &self.machines[replica.0 as usize]
    }

    pub(super) fn machine_mut(&mut self, replica: ReplicaIx) -> &mut Machine {
        &mut self.machines[replica.0 as usize]
    }

    fn expect_fault(&mut self) {
        if let Some((at, target, kind)) = self.faults.next() {
            self.fault = Some((target, kind));
            self.push(at.max(self.now), Event::Fault);
        }
    }
}

/// A replica by its place in the table.
pub(crate) fn index(at: usize) -> ReplicaIx {
    ReplicaIx(u32::try_from(at).unwrap_or(u32::MAX))
}
