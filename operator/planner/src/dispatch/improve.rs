//! Makes a plan better: everybody gets a place, jobs move where that saves something, and a job that has none may take
//! that of one which costs the fleet more. So under overload what is shed is what the least can be done instead of.

use crate::dispatch::line::{self, With};
use crate::dispatch::place::{Among, Costs, Place, place};
use crate::dispatch::{Board, Busy, JobIx, View, Worth};

/// Times that all jobs are looked at for a better place. Most plans stand after two.
const ROUNDS: usize = 4;
/// A move or an exchange that saves less is not worth the unrest. Seconds of work.
const UNREST: f64 = 0.3;
/// A job may take another's place when that frees at least this much of the fleet's work: the many that it could serve
/// instead are worth more than the one. Seconds.
const FREED: f64 = 1.0;
/// Exchanges at one moment: bounds the time that a plan takes.
const EXCHANGES: usize = 60;

pub(super) fn improve(board: &mut Board, view: &View<'_>, worth: &Worth) {
    let mut costs = Costs::new(board, view);
    for _ in 0..ROUNDS {
        seat(board, view, worth, &mut costs);
        let moved = relocate(board, view, worth, &mut costs);
        let exchanged = exchange(board, view, worth, &mut costs);
        if !moved && !exchanged {
            break;
        }
    }
}

/// The earliest deadline first: who can wait finds a place later too.
fn seat(board: &mut Board, view: &View<'_>, worth: &Worth, costs: &mut Costs) {
    let mut jobs = std::mem::take(&mut board.placeless);
    jobs.sort_by_key(|job| (board.known(*job).deadline, *job));
    for job in jobs {
        match place(board, view, worth, costs, job, board.among(job)) {
            Some(found) => insert(board, costs, job, found),
            None => board.placeless.push(job),
        }
    }
}

fn insert(board: &mut Board, costs: &mut Costs, job: JobIx, place: Place) {
    board.lines[place.replica].insert(place.at, job);
    costs.changed(place.replica);
}

/// Takes each job out and puts it where it costs least.
fn relocate(board: &mut Board, view: &View<'_>, worth: &Worth, costs: &mut Costs) -> bool {
    let mut moved = false;
    for replica in 0..view.replicas.len() {
        let mut at = first_movable(board, view, replica);
        let among = if costs.is_fresh(replica) { Among::All } else { Among::Fresh };
        while at < board.lines[replica].len() {
            let job = board.lines[replica][at];
            if matches!(view.replicas[replica].busy, Busy::Drawing { job: drawn, .. } if drawn == job) {
                at += 1;
                continue;
            }
            let with = costs.of(board, view, worth, replica);
            board.lines[replica].remove(at);
            costs.forget(replica);
            let without = costs.of(board, view, worth, replica);
            let found = without.and_then(|_| place(board, view, worth, costs, job, among));
            match (found, with.zip(without)) {
                (Some(found), Some((with, without))) if found.cost + UNREST < with - without => {
                    costs.changed(replica);
                    insert(board, costs, job, found);
                    moved = true;
                    at += usize::from(found.replica == replica);
                }
                (Some(found), None) => {
                    costs.changed(replica);
                    insert(board, costs, job, found);
                }
                (None, None) => {
                    costs.changed(replica);
                    board.placeless.push(job);
                }
                (Some(_) | None, Some(_)) => {
                    board.lines[replica].insert(at, job);
                    costs.forget(replica);
                    at += 1;
                }
            }
        }
    }
    moved
}

impl Board {
    fn among(&self, job: JobIx) -> Among {
        if self.looked_at.contains(&job) { Among::Fresh } else { Among::All }
    }
}

fn first_movable(board: &Board, view: &View<'_>, replica: usize) -> usize {
    view.replicas[replica].fixed(&board.lines[replica])
}

/// A place that somebody else would have to leave.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    freed: f64,
    replica: usize,
    leaver: usize,
    at: usize,
}

/// The smallest first, for they find a place easily and are worth as much as others.
fn exchange(board: &mut Board, view: &View<'_>, worth: &Worth, costs: &mut Costs) -> bool {
    let mut changed = false;
    let mut queue = std::mem::take(&mut board.placeless);
    queue.sort_by_key(|job| (board.known(*job).work, *job));
    queue.reverse();
    let mut tries = 0;
    while let Some(job) = queue.pop() {
        tries += 1;
        if let Some(found) = place(board, view, worth, costs, job, board.among(job)) {
            insert(board, costs, job, found);
            changed = true;
        } else if let Some(found) =
            (tries <= EXCHANGES).then(|| best_exchange(board, view, worth, costs, job)).flatten()
        {
            let leaver = board.lines[found.replica].remove(found.leaver);
            board.lines[found.replica].insert(found.at, job);
            costs.changed(found.replica);
            board.looked_at.remove(&leaver);
            queue.insert(0, leaver);
            changed = true;
        } else {
            board.placeless.push(job);
        }
    }
    changed
}

fn best_exchange(board: &mut Board, view: &View<'_>, worth: &Worth, costs: &mut Costs, job: JobIx) -> Option<Exchange> {
    let wants = board.known(job);
    let among = board.among(job);
    let mut best: Option<Exchange> = None;
    for (replica, seen) in view.replicas.iter().enumerate() {
        if seen.closed
            || !costs.concerns(replica, among)
            || view.origin(seen) + wants.work.at(seen.speed) > wants.deadline
        {
            continue;
        }
        let fixed = first_movable(board, view, replica);
        for leaver in fixed..board.lines[replica].len() {
            let other = board.lines[replica][leaver];
            // The one that leaves gives back its drawing beside its loads.
            let smaller = view.left(board, seen, other).secs() - wants.work.secs();
            let Some(with) = costs.of(board, view, worth, replica) else { continue };
            board.lines[replica].remove(leaver);
            for at in fixed..=board.lines[replica].len() {
                if at == 0 && matches!(seen.busy, Busy::Loading { job: Some(_), .. }) && !seen.held.has(wants.model) {
                    continue;
                }
                if let Some(cost) = line::cost(board, view, worth, replica, Some(With { job, at })) {
                    let freed = with - cost + smaller;
                    if freed > FREED && best.is_none_or(|best| freed > best.freed) {
                        best = Some(Exchange { freed, replica, leaver, at });
                    }
                }
            }
            board.lines[replica].insert(leaver, other);
        }
    }
    best
}
