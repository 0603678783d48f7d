//! The cheapest place for one job among all lines, where it and everybody behind it stay in time.
//! Selects without effects: the caller inserts.

use crate::dispatch::line::{self, With};
use crate::dispatch::{Board, Busy, JobIx, Replica, View, Worth};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// What the line costs more than without the job.
    pub(super) cost: f64,
    pub(super) replica: usize,
    pub(super) at: usize,
}

/// Costs of all lines as they are; each is walked at most once between two changes.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    lines: Vec<Option<f64>>,
    /// Lines and replicas that have changed since the last plan.
    fresh: Vec<bool>,
}

/// Where to look for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    All,
    /// For whoever has looked at the others before.
    Fresh,
}

impl Costs {
    pub(super) fn new(board: &Board, view: &View<'_>) -> Self {
        let fresh = board.seen.iter().zip(view.replicas).map(|(seen, replica)| seen.as_ref() != Some(replica));
        Self { lines: vec![None; board.lines.len()], fresh: fresh.collect() }
    }

    /// For a while: what is taken out will be put back, or somebody comes or goes.
    pub(super) fn forget(&mut self, replica: usize) {
        self.lines[replica] = None;
    }

    pub(super) fn changed(&mut self, replica: usize) {
        self.lines[replica] = None;
        self.fresh[replica] = true;
    }

    pub(super) fn is_fresh(&self, replica: usize) -> bool {
        self.fresh[replica]
    }

    pub(super) fn concerns(&self, replica: usize, among: Among) -> bool {
        among == Among::All || self.fresh[replica]
    }

    /// A line that is late already (a step took longer than was thought) costs nothing more to look at.
    pub(super) fn of(&mut self, board: &Board, view: &View<'_>, worth: &Worth, replica: usize) -> Option<f64> {
        if self.lines[replica].is_none() {
            self.lines[replica] = Some(line::cost(board, view, worth, replica, None).unwrap_or(f64::INFINITY));
        }
        self.lines[replica].filter(|cost| cost.is_finite())
    }
}

pub(super) fn place(
    board: &Board,
    view: &View<'_>,
    worth: &Worth,
    costs: &mut Costs,
    job: JobIx,
    among: Among,
) -> Option<Place> {
    let mut best: Option<Place> = None;
    // Where it is resident comes first: what is found there rules most of the others out unwalked.
    for resident in [true, false] {
        for (at, replica) in view.replicas.iter().enumerate() {
            if costs.concerns(at, among) && suits(board, view, replica, at, job) == Some(resident) {
                look(board, view, worth, costs, job, at, &mut best);
            }
        }
    }
    best
}

/// Whether the job needs no load there; `None` where it can't be in time even alone.
fn suits(board: &Board, view: &View<'_>, replica: &Replica, at: usize, ix: JobIx) -> Option<bool> {
    let job = board.known(ix);
    if replica.closed || view.origin(replica) + job.work.at(replica.speed) > job.deadline {
        return None;
    }
    let resident = replica.held.has(job.model);
    Some(resident || board.lines[at].iter().any(|other| board.known(*other).model == job.model))
}

fn look(
    board: &Board,
    view: &View<'_>,
    worth: &Worth,
    costs: &mut Costs,
    ix: JobIx,
    at: usize,
    best: &mut Option<Place>,
) {
    let replica = &view.replicas[at];
    let line = &board.lines[at];
    let job = board.known(ix);
    let resident = replica.held.has(job.model);
    let shared = resident || line.iter().any(|other| board.known(*other).model == job.model);
    if !shared && best.is_some_and(|best| best.cost <= view.loads.of(&replica.held, job.model).secs() * replica.speed) {
        return;
    }
    let Some(before) = costs.of(board, view, worth, at) else { return };
    for place in replica.fixed(line)..=line.len() {
        // While it loads, the first who comes must be of what is loaded.
        if place == 0 && matches!(replica.busy, Busy::Loading { job: Some(_), .. }) && !resident {
            continue;
        }
        if let Some(cost) = line::cost(board, view, worth, at, Some(With { job: ix, at: place })) {
            let cost = cost - before;
            if best.is_none_or(|best| cost < best.cost) {
                *best = Some(Place { cost, replica: at, at: place });
            }
        }
    }
}
