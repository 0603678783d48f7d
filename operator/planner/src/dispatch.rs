//! Binds waiting requests to replicas as late as possible: who is drawn where and in which order, who is put aside for a
//! tighter deadline, and who can't be in time any more. Knows work, deadlines, residency and what a switch of checkpoints
//! costs; does not know HTTP, Kubernetes or a clock.
//!
//! Every replica has a line of jobs. A job is inserted where it costs least among the places where it and all behind it
//! stay in time; then jobs move while that saves something; then one that has no place may take that of a costlier one.
//! Costs are seconds of the fleet's work (a second on a replica of speed 2 counts twice): drawing, loading, and the loads
//! that evicting a wanted checkpoint will bring.

mod ahead;
mod improve;
mod line;
mod place;
mod worth;

use std::collections::BTreeSet;

use crate::demand::ModelIx;
use crate::time::{Moment, Span};

pub use ahead::{Ahead, ahead};
pub use line::Held;
pub use worth::Worth;

/// A request's place in the board; given again once the job has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIx(pub u32);

/// A replica's place in the caller's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaIx(pub u32);

/// What a request still needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    pub model: ModelIx,
    /// Drawing that is left, at speed 1.
    pub work: Span,
    /// Time to load its adapters, on any replica.
    pub adapters: Span,
    pub deadline: Moment,
    /// Where its adapters are loaded.
    pub warm: Option<ReplicaIx>,
}

/// A replica as it is observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Work a second.
    pub speed: f64,
    pub busy: Busy,
    /// Checkpoints on the device and in the host's memory, the latest used first.
    pub held: Held,
    /// Takes no new work: is starting, or going away.
    pub closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Busy {
    Idle,
    /// Loads what is the latest used of its device: for the first of its line, which then nobody interrupts, or ahead of
    /// demand, which gives way to whoever needs the replica.
    Loading {
        until: Moment,
        job: Option<JobIx>,
    },
    /// Draws, since then.
    Drawing {
        job: JobIx,
        since: Moment,
    },
}

/// How long a checkpoint takes to the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loads {
    pub from_store: Span,
    pub from_host: Span,
}

impl Loads {
    /// Nothing for what is on the device.
    pub fn of(&self, held: &Held, model: ModelIx) -> Span {
        match (held.has(model), held.in_host(model)) {
            (true, _) => Span::ZERO,
            (false, true) => self.from_host,
            (false, false) => self.from_store,
        }
    }
}

/// What the planner looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub now: Moment,
    pub replicas: &'a [Replica],
    pub loads: Loads,
}

/// All jobs, the lines they stand in, and those that have no place.
#[derive(Clone, Debug, Default)]
pub struct Board {
    jobs: Vec<Option<Job>>,
    free: Vec<JobIx>,
    lines: Vec<Vec<JobIx>>,
    placeless: Vec<JobIx>,
    /// Replicas as they were when the last plan was made, and placeless jobs that it has looked at: what has not changed
    /// since offers nobody a better place.
    seen: Vec<Option<Replica>>,
    looked_at: BTreeSet<JobIx>,
}

/// What shall happen now; the caller does it and tells the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The replica turns to this job: it loads what is missing, or draws. Whoever it draws now is put aside.
    Turn { replica: ReplicaIx, job: JobIx },
    /// Nothing can finish it in time any more.
    Shed { job: JobIx },
}

impl Board {
    pub fn add(&mut self, job: Job) -> JobIx {
        let ix = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            JobIx(u32::try_from(self.jobs.len() - 1).unwrap_or(u32::MAX))
        });
        self.jobs[ix.0 as usize] = Some(job);
        self.placeless.push(ix);
        ix
    }

    /// It was drawn, was cancelled, or failed.
    pub fn remove(&mut self, job: JobIx) {
        if self.jobs.get_mut(job.0 as usize).and_then(Option::take).is_some() {
            self.free.push(job);
            self.looked_at.remove(&job);
            self.placeless.retain(|other| *other != job);
            for (line, seen) in self.lines.iter_mut().zip(&mut self.seen) {
                if let Some(at) = line.iter().position(|other| *other == job) {
                    line.remove(at);
                    *seen = None;
                }
            }
        }
    }

    pub fn job(&self, job: JobIx) -> Option<&Job> {
        self.jobs.get(job.0 as usize)?.as_ref()
    }

    pub fn job_mut(&mut self, job: JobIx) -> Option<&mut Job> {
        self.jobs.get_mut(job.0 as usize)?.as_mut()
    }

    /// Those that wait or are drawn.
    pub fn len(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Jobs in the order in which the replica shall draw them.
    pub fn line(&self, replica: ReplicaIx) -> &[JobIx] {
        self.lines.get(replica.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The replica is gone or takes nothing more: who stood there looks for another place.
    pub fn close(&mut self, replica: ReplicaIx) {
        if let Some(line) = self.lines.get_mut(replica.0 as usize) {
            self.placeless.append(line);
            self.seen[replica.0 as usize] = None;
        }
    }

    /// Plans anew and says what shall happen now.
    pub fn dispatch(&mut self, view: &View<'_>, worth: &Worth) -> Vec<Order> {
        let replicas = view.replicas.len().max(self.lines.len());
        self.lines.resize(replicas, Vec::new());
        self.seen.resize(replicas, None);
        let mut orders = self.shed(view);
        improve::improve(self, view, worth);
        self.looked_at = self.placeless.iter().copied().collect();
        self.seen.iter_mut().zip(view.replicas).for_each(|(seen, replica)| *seen = Some(replica.clone()));
        let turn = |(at, replica): (usize, &Replica)| {
            let job = *self.lines[at].first()?;
            let turns = match replica.busy {
                Busy::Idle => true,
                Busy::Loading { job: Some(_), .. } => false,
                Busy::Loading { job: None, .. } => replica.held.latest() != Some(self.known(job).model),
                Busy::Drawing { job: drawn, .. } => drawn != job,
            };
            let replica = ReplicaIx(u32::try_from(at).unwrap_or(u32::MAX));
            turns.then_some(Order::Turn { replica, job })
        };
        orders.extend(view.replicas.iter().enumerate().filter_map(turn));
        orders
    }

    fn shed(&mut self, view: &View<'_>) -> Vec<Order> {
        let fastest = view.replicas.iter().map(|replica| replica.speed).fold(0.0, f64::max);
        let jobs = &self.jobs;
        let hopeless = |ix: &JobIx| {
            let job = jobs[ix.0 as usize].as_ref();
            job.is_some_and(|job| fastest > 0.0 && view.now + job.adapters + job.work.at(fastest) > job.deadline)
        };
        self.placeless.iter().copied().filter(hopeless).map(|job| Order::Shed { job }).collect()
    }

    fn known(&self, job: JobIx) -> Job {
        self.jobs[job.0 as usize].unwrap_or(GONE)
    }
}

/// Stands in a line by nobody's doing: takes no time, so it can't harm.
const GONE: Job =
    Job { model: ModelIx(u32::MAX), work: Span::ZERO, adapters: Span::ZERO, deadline: Moment::NEVER, warm: None };

#[cfg(test)]
mod tests;
