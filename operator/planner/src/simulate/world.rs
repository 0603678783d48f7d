//! The simulated fleet: replicas that load, draw and are put aside, requests on their way, and the clock.
//! Does what a policy says, as a pod would; refuses to know why.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::demand::ModelIx;
use crate::dispatch::{Held, Loads, ReplicaIx, Worth};
use crate::simulate::money::Books;
use crate::simulate::{Load, Request, Scenario};
use crate::time::{Moment, Span};

/// A request by its place in the load.
pub(crate) type TaskIx = usize;

/// What a policy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    Arrived(TaskIx),
    Loaded(ReplicaIx),
    Drawn(ReplicaIx, TaskIx),
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
    /// What the fleet's checkpoints are worth now, for whoever has to leave a device.
    Value(Worth),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    Idle,
    Loading { since: Moment, until: Moment, task: Option<TaskIx> },
    Drawing { task: TaskIx, since: Moment },
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub pool: usize,
    pub speed: f64,
    pub doing: Doing,
    pub held: Held,
    pub books: Books,
    /// Whom it has just loaded for.
    pub loaded_for: Option<TaskIx>,
    /// Of what it does; an event of an older one is void.
    turn: u32,
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
enum Event {
    Done { replica: ReplicaIx, turn: u32 },
    Arrival(TaskIx),
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
    worth: Worth,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    sequence: u64,
    arrived: usize,
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario, load: &'a Load) -> Self {
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
            machines: machines(scenario, load),
            tasks: tasks.collect(),
            switches: 0,
            fetches: 0,
            put_aside: 0,
            worth: Worth::default(),
            events: BinaryHeap::new(),
            sequence: 0,
            arrived: 0,
        };
        world.announce();
        world
    }

    pub fn loads(&self) -> Loads {
        Loads { from_store: self.scenario.load_from_store, from_host: self.scenario.load_from_host }
    }

    pub fn request(&self, task: TaskIx) -> &'a Request {
        &self.load.requests[task]
    }

    /// Goes on to what happens next; `None` once nothing does.
    pub fn advance(&mut self) -> Option<Happening> {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            let happening = match event {
                Event::Arrival(task) => {
                    self.now = at;
                    self.announce();
                    Happening::Arrived(task)
                }
                Event::Done { replica, turn } => {
                    if self.machines[replica.0 as usize].turn != turn {
                        continue;
                    }
                    self.now = at;
                    self.done(replica)
                }
            };
            return Some(happening);
        }
        self.close_books();
        None
    }

    pub fn act(&mut self, act: Act) {
        match act {
            Act::Turn { replica, task } => self.turn(replica, task),
            Act::Fetch { replica, model } => self.fetch(replica, model),
            Act::Refuse { task } => {
                self.put_aside_if(|doing| matches!(doing, Doing::Drawing { task: drawn, .. } if *drawn == task));
                self.tasks[task].fate = Fate::Refused;
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

    fn push(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn done(&mut self, replica: ReplicaIx) -> Happening {
        let machine = &mut self.machines[replica.0 as usize];
        match std::mem::replace(&mut machine.doing, Doing::Idle) {
            Doing::Drawing { task, since } => {
                machine.books.drawing += self.now.since(since);
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
        let mut loading = Span::ZERO;
        loading += loads.of(&machine.held, request.model);
        self.switches += u64::from(machine.held.bring(request.model, &self.worth));
        if self.tasks[task].warm != Some(replica) {
            loading += request.adapters;
            self.tasks[task].warm = Some(replica);
        }
        if loading > Span::ZERO {
            self.begin_load(replica, loading, Some(task));
        } else {
            let left = self.tasks[task].left.at(machine.speed);
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
        machine.doing = Doing::Loading { since: self.now, until: self.now + loading, task };
        self.expect(replica, loading);
    }

    fn expect(&mut self, replica: ReplicaIx, after: Span) {
        let machine = &mut self.machines[replica.0 as usize];
        machine.turn += 1;
        let turn = machine.turn;
        self.push(self.now + after, Event::Done { replica, turn });
    }

    fn stop_drawing(&mut self, replica: ReplicaIx) {
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
        let drawn = self.now.since(since).times(self.machines[replica.0 as usize].speed);
        before.less(drawn).whole(step).min(before)
    }

    fn put_aside_if(&mut self, which: impl Fn(&Doing) -> bool) {
        if let Some(at) = self.machines.iter().position(|machine| which(&machine.doing)) {
            self.stop_drawing(index(at));
        }
    }

    fn close_books(&mut self) {
        for machine in &mut self.machines {
            machine.books.close(self.now);
        }
    }
}

/// A replica by its place in the table.
pub(crate) fn index(at: usize) -> ReplicaIx {
    ReplicaIx(u32::try_from(at).unwrap_or(u32::MAX))
}

/// At the start all replicas are there and hold the most popular models, one each, then the next ones.
fn machines(scenario: &Scenario, load: &Load) -> Vec<Machine> {
    let pools = scenario.pools.iter().enumerate();
    let mut machines: Vec<Machine> = pools
        .flat_map(|(at, pool)| {
            (0..pool.min).map(move |_| Machine {
                pool: at,
                speed: pool.speed,
                doing: Doing::Idle,
                held: Held::new(pool.resident_slots, pool.host_slots),
                books: Books::default(),
                loaded_for: None,
                turn: 0,
            })
        })
        .collect();
    let slots = scenario.pools.iter().map(|pool| pool.resident_slots).max().unwrap_or(0);
    let mut popular = 0;
    for slot in 0..slots {
        for machine in machines.iter_mut().filter(|machine| scenario.pools[machine.pool].resident_slots > slot) {
            let model = popular % load.models.len().max(1);
            let model = ModelIx(u32::try_from(model).unwrap_or(u32::MAX));
            popular += 1;
            machine.held.bring(model, &Worth::default());
        }
    }
    for machine in &mut machines {
        machine.books.open(Moment::ORIGIN);
    }
    machines
}
