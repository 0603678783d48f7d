//! Who is given up where a pool has more than it shall have: the one whose loss costs least.

use std::cmp::Reverse;

use crate::autoscaler::{Input, Observed};
use crate::time::Moment;

/// What a loss costs: the least goes first, and the fields are compared from the top down.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    busy: bool,
    /// Milliseconds of loads that what it holds would save.
    worth: u64,
    /// The youngest has warmed up least.
    since: Reverse<Moment>,
    /// Makes equal ones come out in one order.
    at: usize,
}

/// Places among the observed replicas. Who is reclaimed goes by itself.
pub(super) fn leave(input: &Input<'_>, desired: &[u32]) -> Vec<usize> {
    let mut end = Vec::new();
    for (pool, wanted) in desired.iter().enumerate() {
        let here = input.replicas.iter().enumerate();
        let stays = here.filter(|(_, replica)| replica.pool == pool && !replica.leaving);
        let mut losses: Vec<Loss> = stays.map(|(at, replica)| loss(at, replica)).collect();
        losses.sort_unstable();
        let surplus = losses.len().saturating_sub(*wanted as usize);
        end.extend(losses.into_iter().take(surplus).map(|loss| loss.at));
    }
    end
}

fn loss(at: usize, replica: &Observed) -> Loss {
    Loss { busy: replica.busy, worth: (replica.worth * 1e3) as u64, since: Reverse(replica.since), at }
}
