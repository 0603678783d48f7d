//! What a line of jobs costs and whether all of it is in time, walked from the replica's present state.
//! Knows one replica; who stands in the line is decided elsewhere.

use crate::demand::ModelIx;
use crate::dispatch::{Board, Busy, JobIx, Replica, ReplicaIx, View, Worth};
use crate::time::{Moment, Span};

/// A second of work on a faster replica costs this much more: fast ones are kept free for what only they can do in time.
const FAST: f64 = 0.1;
/// Each second that a job waits costs this much: what is drawn sooner leaves more room for what nobody expects yet.
const WAIT: f64 = 0.3;
/// Putting a job aside costs this much, beside the step that it loses.
const ASIDE: f64 = 0.5;

/// Checkpoints that one replica holds, by tier, the latest used first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    device: Tier,
    host: Tier,
}

/// Few, and copied in the innermost loop.
const TIER: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tier {
    models: [ModelIx; TIER],
    len: u8,
    slots: u8,
}

impl Tier {
    fn new(slots: usize) -> Self {
        let slots = u8::try_from(slots.min(TIER)).unwrap_or(u8::MAX);
        Self { models: [ModelIx(u32::MAX); TIER], len: 0, slots }
    }

    fn all(&self) -> &[ModelIx] {
        &self.models[..self.len as usize]
    }

    fn take(&mut self, model: ModelIx) -> bool {
        let Some(at) = self.all().iter().position(|held| *held == model) else { return false };
        self.models.copy_within(at + 1..self.len as usize, at);
        self.len -= 1;
        true
    }

    /// There is room: the caller has seen to that.
    fn put(&mut self, model: ModelIx) {
        self.models.copy_within(0..self.len as usize, 1);
        self.models[0] = model;
        self.len += 1;
    }

    fn full(&self) -> bool {
        self.len == self.slots
    }
}

impl Held {
    /// At most 12 of each, for that is what is looked at.
    pub fn new(device_slots: usize, host_slots: usize) -> Self {
        Self { device: Tier::new(device_slots.max(1)), host: Tier::new(host_slots) }
    }

    pub fn device(&self) -> &[ModelIx] {
        self.device.all()
    }

    pub fn has(&self, model: ModelIx) -> bool {
        // One slot is the usual case, and this the innermost loop.
        if self.device.slots == 1 {
            self.device.len == 1 && self.device.models[0] == model
        } else {
            self.device.all().contains(&model)
        }
    }

    pub fn in_host(&self, model: ModelIx) -> bool {
        self.host.all().contains(&model)
    }

    /// Uses a model now, and says whether that took a load.
    pub fn bring(&mut self, model: ModelIx, worth: &Worth) -> bool {
        if !self.has(model) {
            self.load(model, worth);
            return true;
        }
        if self.device.slots > 1 && self.device.take(model) {
            self.device.put(model);
        }
        false
    }

    /// Brings a model to the device; who has to leave for it goes to the host's memory, if there is a place, and is told.
    pub(super) fn load(&mut self, model: ModelIx, worth: &Worth) -> Option<ModelIx> {
        self.host.take(model);
        let evicted = self.device.full().then(|| self.least(worth));
        if let Some(evicted) = evicted {
            self.device.take(evicted);
            if self.host.slots > 0 {
                if self.host.full() {
                    self.host.len -= 1;
                }
                self.host.put(evicted);
            }
        }
        self.device.put(model);
        evicted
    }

    /// The latest used of the device, or what is on its way there.
    pub fn latest(&self) -> Option<ModelIx> {
        self.device.all().first().copied()
    }

    /// The load of the latest was broken off. Whoever had left for it is gone all the same.
    pub fn break_off(&mut self) {
        if let Some(model) = self.latest() {
            self.device.take(model);
        }
    }

    /// Whoever is worth least; among equals the one that was used longest ago.
    pub(super) fn least(&self, worth: &Worth) -> ModelIx {
        let models = self.device.all().iter().rev().copied();
        models.min_by(|a, b| worth.price(*a).total_cmp(&worth.price(*b))).unwrap_or(ModelIx(u32::MAX))
    }

    pub(super) fn is_full(&self) -> bool {
        self.device.full()
    }
}

/// A line with one more job in it, or as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct With {
    pub(super) job: JobIx,
    pub(super) at: usize,
}

impl View<'_> {
    /// When the replica can turn to another job.
    pub(super) fn origin(&self, replica: &Replica) -> Moment {
        match replica.busy {
            Busy::Loading { until, job: Some(_) } => until.max(self.now),
            Busy::Idle | Busy::Loading { job: None, .. } | Busy::Drawing { .. } => self.now,
        }
    }

    /// What is left to draw of a job, counting what is being drawn.
    pub(super) fn left(&self, board: &Board, replica: &Replica, job: JobIx) -> Span {
        let work = board.known(job).work;
        match replica.busy {
            Busy::Drawing { job: drawn, since } if drawn == job => {
                work.less(self.now.since(since).times(replica.speed))
            }
            Busy::Idle | Busy::Loading { .. } | Busy::Drawing { .. } => work,
        }
    }
}

impl Replica {
    /// The first of the line can't be moved: it is what the replica loads for.
    pub(super) fn fixed(&self, line: &[JobIx]) -> usize {
        match self.busy {
            Busy::Loading { job: Some(job), .. } => usize::from(line.first() == Some(&job)),
            Busy::Idle | Busy::Loading { job: None, .. } | Busy::Drawing { .. } => 0,
        }
    }
}

/// Seconds of work that the line costs; `None` when somebody in it would be late.
pub(super) fn cost(board: &Board, view: &View<'_>, worth: &Worth, at: usize, with: Option<With>) -> Option<f64> {
    let replica = &view.replicas[at];
    let line = &board.lines[at];
    let place = with.map_or(usize::MAX, |with| with.at);
    let mut walk = Walk {
        replica,
        here: ReplicaIx(u32::try_from(at).unwrap_or(u32::MAX)),
        held: replica.held,
        time: view.origin(replica),
        cost: 0.0,
    };
    for step in 0..line.len() + usize::from(with.is_some()) {
        let job = match with {
            Some(with) if step == place => with.job,
            Some(_) if step > place => line[step - 1],
            Some(_) | None => line[step],
        };
        if step == 0 {
            walk.turn(board, job);
        }
        walk.draw(board, view, worth, job)?;
    }
    Some(walk.cost)
}

struct Walk<'a> {
    replica: &'a Replica,
    here: ReplicaIx,
    held: Held,
    time: Moment,
    cost: f64,
}

impl Walk<'_> {
    /// From what the replica does to the first of its line.
    fn turn(&mut self, board: &Board, job: JobIx) {
        match self.replica.busy {
            Busy::Drawing { job: drawn, .. } if drawn != job => self.cost += ASIDE * self.replica.speed,
            Busy::Loading { until, job: None } if self.held.latest() == Some(board.known(job).model) => {
                self.time = self.time.max(until);
            }
            Busy::Loading { job: None, .. } => self.held.break_off(),
            Busy::Idle | Busy::Loading { job: Some(_), .. } | Busy::Drawing { .. } => {}
        }
    }

    fn draw(&mut self, board: &Board, view: &View<'_>, worth: &Worth, ix: JobIx) -> Option<()> {
        let job = board.known(ix);
        let speed = self.replica.speed;
        if !self.held.has(job.model) {
            let load = view.loads.of(&self.held, job.model);
            let evicted = self.held.load(job.model, worth);
            self.time = self.time + load;
            self.cost += load.secs() * speed + evicted.map_or(0.0, |model| worth.price(model));
        }
        if job.adapters > Span::ZERO && job.warm != Some(self.here) {
            self.time = self.time + job.adapters;
            self.cost += job.adapters.secs() * speed;
        }
        self.cost += WAIT * self.time.since(view.now).secs();
        let left = view.left(board, self.replica, ix);
        self.time = self.time + left.at(speed);
        self.cost += FAST * left.secs() * speed;
        (self.time <= job.deadline).then_some(())
    }
}
