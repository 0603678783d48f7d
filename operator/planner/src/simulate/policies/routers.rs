//! Routers that know nothing of time, and those that guess at it: random, round robin, power of two choices, hashing.
//! Each is a few lines that pick a queue; whoever is random is so by the seed.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::dispatch::ReplicaIx;
use crate::simulate::policies::immediate::{Pick, Queue};

/// How much fuller than the average a replica may be before hashing goes on to the next: the usual bound.
const BOUND: f64 = 1.25;

pub(super) fn random(seed: u64) -> Pick {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    Box::new(move |_, _, queues| any(&mut random, queues).map(|queue| queue.replica))
}

pub(super) fn round_robin() -> Pick {
    let mut turn = 0;
    Box::new(move |_, _, queues| {
        turn += 1;
        queues.get((turn - 1) % queues.len().max(1)).map(|queue| queue.replica)
    })
}

/// The shorter queue of two that were drawn by lot.
pub(super) fn power_of_two(seed: u64) -> Pick {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    Box::new(move |_, _, queues| {
        let (one, other) = (any(&mut random, queues)?, any(&mut random, queues)?);
        Some(if other.length < one.length { other.replica } else { one.replica })
    })
}

/// Consistent hashing on the model with bounded load: replicas in an order of the model's own (highest random weight), and
/// the first whose queue is not longer than 1.25 times the average.
pub(super) fn hash_bounded_load() -> Pick {
    Box::new(|world, task, queues| {
        let model = world.request(task).model.0;
        let waiting: usize = queues.iter().map(|queue| queue.length).sum();
        let most = (BOUND * (waiting + 1) as f64 / queues.len().max(1) as f64).ceil() as usize;
        let open = queues.iter().filter(|queue| queue.length < most);
        open.max_by_key(|queue| weight(model, queue.replica)).map(|queue| queue.replica)
    })
}

/// The earliest finish, as if every checkpoint were everywhere.
pub(super) fn shortest_delay_blind() -> Pick {
    let mut free = Vec::new();
    Box::new(move |world, _, queues| {
        free.resize(world.machines.len(), world.now);
        let finish = |queue: &&Queue| free[queue.replica.0 as usize].max(world.now) + queue.draws;
        let best = queues.iter().min_by_key(finish)?;
        free[best.replica.0 as usize] = finish(&best);
        Some(best.replica)
    })
}

fn any<'a>(random: &mut Pcg64Mcg, queues: &'a [Queue]) -> Option<&'a Queue> {
    (!queues.is_empty()).then(|| &queues[random.random_range(0..queues.len())])
}

/// The mixing steps of splitmix64, which scatters numbers that lie side by side.
fn weight(model: u32, replica: ReplicaIx) -> u64 {
    let mut bits = (u64::from(model) << 32 | u64::from(replica.0)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
