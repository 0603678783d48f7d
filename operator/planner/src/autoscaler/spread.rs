//! Which pools give the speed that is needed, for the least money within all limits.
//! Knows prices, speeds and limits; not who runs now.

use crate::autoscaler::Pool;
use crate::snapshot::Capacity;

/// Up to this many pools all orders of them are tried.
const FEW: usize = 5;

/// Replicas by pool. Fills the pools one after another, in every order that is tried, and takes what places most and then
/// costs least. The orders do not depend on prices, so that a cheaper world is never dearer.
pub(super) fn spread(pools: &[Pool], survives: f64, need: f64) -> Vec<u32> {
    let score = |counts: &Vec<u32>| {
        let placed: f64 = pools.iter().zip(counts).map(|(pool, n)| pool.speed * f64::from(*n)).sum();
        let price: u128 = pools.iter().zip(counts).map(|(pool, n)| u128::from(cost(pool, *n))).sum();
        (need - placed.min(need), price)
    };
    let plans = orders(pools.len()).into_iter().map(|order| fill(pools, &order, survives, need));
    let least = plans.min_by(|a, b| {
        let (a, b) = (score(a), score(b));
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
    });
    least.unwrap_or_default()
}

/// The spares of each pool on top, within its limits.
pub(super) fn with_spares(pools: &[Pool], mut counts: Vec<u32>, awake: bool) -> Vec<u32> {
    for (pool, count) in pools.iter().zip(&mut counts) {
        if awake {
            *count = count.saturating_add(pool.spares).min(most(pool)).max(*count);
        }
    }
    counts
}

fn cost(pool: &Pool, replicas: u32) -> u64 {
    pool.price.times(replicas).micros()
}

/// Replicas that the pool's limits allow.
fn most(pool: &Pool) -> u32 {
    let affordable = match (pool.max_cost, pool.price.micros()) {
        (None, _) | (_, 0) => u32::MAX,
        (Some(most), price) => u32::try_from(most.micros() / price).unwrap_or(u32::MAX),
    };
    pool.max.min(affordable)
}

/// One more replica at a time, of the first pool in the order that may have one: so a larger need never gives fewer.
fn fill(pools: &[Pool], order: &[usize], survives: f64, need: f64) -> Vec<u32> {
    let mut counts: Vec<u32> = pools.iter().map(|pool| pool.min.min(most(pool))).collect();
    let speed = |counts: &[u32], at: usize| pools[at].speed * f64::from(counts[at]);
    loop {
        let total: f64 = (0..pools.len()).map(|at| speed(&counts, at)).sum();
        if total >= need {
            return counts;
        }
        let may = |at: &&usize| {
            let pool = &pools[**at];
            let others = total - speed(&counts, **at);
            let safe = pool.capacity == Capacity::OnDemand || others >= survives * (total + pool.speed);
            counts[**at] < most(pool) && safe
        };
        // Where only spot is left, a fleet that a reclaim can halve is better than none.
        let any = || order.iter().find(|at| counts[**at] < most(&pools[**at]));
        let Some(at) = order.iter().find(may).or_else(any).copied() else { return counts };
        counts[at] += 1;
    }
}

/// All orders of a few pools, and of many the rotations.
fn orders(pools: usize) -> Vec<Vec<usize>> {
    if pools > FEW {
        return (0..pools).map(|first| (0..pools).map(|at| (first + at) % pools).collect()).collect();
    }
    let mut orders = vec![Vec::new()];
    for at in 0..pools {
        let longer = |order: Vec<usize>| {
            (0..=order.len()).map(move |place| {
                let mut order = order.clone();
                order.insert(place, at);
                order
            })
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}
