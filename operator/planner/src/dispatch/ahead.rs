//! Loads ahead of demand: an idle replica may fetch what will likelier be asked for than what it holds.
//! Knows worth and idleness; gives one load at a time, so that a wrong forecast never takes the fleet's idle replicas.

use crate::demand::ModelIx;
use crate::dispatch::{Board, Busy, Replica, ReplicaIx, View, Worth};

/// So many idle replicas of usual speed must there be: one stays free for what nobody expects.
const SPARE: usize = 2;
/// What a load ahead must be worth, in seconds of work.
const LEAST_GAIN: f64 = 2.0;
/// Another copy is worth this much of a first one: it shortens queues, and saves a load only when they are long.
const COPY: f64 = 0.7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    pub replica: ReplicaIx,
    pub model: ModelIx,
}

/// The best load ahead of demand, if any is worth it.
pub fn ahead(board: &Board, view: &View<'_>, worth: &Worth) -> Option<Ahead> {
    let usual = usual_speed(view.replicas);
    let idle: Vec<usize> = (0..view.replicas.len()).filter(|at| is_idle(board, view, *at)).collect();
    if idle.iter().filter(|at| view.replicas[**at].speed >= usual).count() < SPARE {
        return None;
    }
    let mut best: Option<(f64, Ahead)> = None;
    for at in idle {
        let replica = &view.replicas[at];
        let loss = if replica.held.is_full() { worth.price(replica.held.least(worth)) } else { 0.0 };
        for model in worth.models().filter(|model| worth.rate(*model) > 0.0 && !replica.held.has(*model)) {
            let first = worth.held(model) == 0.0;
            // A slow replica that had to load would be late for most: it only takes copies.
            if first && replica.speed < usual {
                continue;
            }
            let gain = worth.copy(model, replica.speed) * if first { 1.0 } else { COPY } - loss;
            if gain > LEAST_GAIN && best.is_none_or(|(most, _)| gain > most) {
                let replica = ReplicaIx(u32::try_from(at).unwrap_or(u32::MAX));
                best = Some((gain, Ahead { replica, model }));
            }
        }
    }
    best.map(|(_, ahead)| ahead)
}

fn is_idle(board: &Board, view: &View<'_>, at: usize) -> bool {
    let replica = &view.replicas[at];
    replica.busy == Busy::Idle && !replica.closed && board.lines.get(at).is_none_or(Vec::is_empty)
}

/// The median, so that a few fast or slow ones do not decide.
fn usual_speed(replicas: &[Replica]) -> f64 {
    let mut speeds: Vec<f64> = replicas.iter().filter(|replica| !replica.closed).map(|replica| replica.speed).collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied().unwrap_or(0.0)
}
