//! The best that perfect knowledge could do: an upper bound on attainment that no policy can pass, computed from a price of
//! time. Knows requests and the fleet's speed; simulates nothing.
//!
//! **The bound.** Cut time into cells and give each a price `π ≥ 0` for a second of work (a second on a replica of speed 2
//! is two). Whoever draws request `j` in time spends at least `p_j` seconds of work within the cells that its window
//! touches: its drawing, and its adapters once, on the slowest replica. So it pays at least `p_j × m_j`, where `m_j` is the
//! least price among those cells, and all that are drawn in time pay together at most what the fleet has: `Σ speed × cell ×
//! π`. With `v_j` for what a request counts, any set `A` that can be drawn in time has
//!
//! ```text
//! Σ_A v_j  ≤  Σ_A (p_j m_j + max(0, v_j - p_j m_j))  ≤  Σ_cells speed × cell × π  +  Σ_all max(0, v_j - p_j m_j)
//! ```
//!
//! The right side is the bound. It holds for every choice of prices, so a mistake in choosing them can make it loose and
//! never wrong. A request that would be late alone on an idle fleet counts nothing.
//!
//! **The prices** are those of a fluid fleet: requests in the order of what they count for their work, as much of each as
//! fits beside those before. Where time runs full, the last that fitted says what it is worth.
//!
//! **What makes it optimistic.** It lets one request be drawn by many replicas at once, and it counts no load of a
//! checkpoint. So what lies between a policy and the bound is not all to be won.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::simulate::{Load, Request, Scenario};
use crate::time::Span;

/// Cells are no shorter than a second and no more than this many.
const CELLS: f64 = 20_000.0;
/// Requests whose worth for their work differs by less than this are priced together.
const LEVEL: f64 = 1.02;

/// An upper bound on the share of requests that can be drawn in time, each counted by `value`.
pub fn bound(scenario: &Scenario, load: &Load, value: impl Fn(&Request) -> f64) -> f64 {
    let all: f64 = load.requests.iter().map(&value).sum();
    let market = Market::new(scenario, load, value);
    let prices = market.prices();
    // No price at all is a choice of prices too.
    let least = market.with(&prices).min(market.with(&vec![0.0; market.cells]));
    if all > 0.0 { (least / all).min(1.0) } else { 1.0 }
}

/// One request as the bound sees it.
#[derive(Clone, Copy, Debug)]
struct Bid {
    first: usize,
    last: usize,
    work: f64,
    value: f64,
}

struct Market {
    bids: Vec<Bid>,
    cells: usize,
    /// Seconds of work in a cell.
    capacity: f64,
}

impl Market {
    fn new(scenario: &Scenario, load: &Load, value: impl Fn(&Request) -> f64) -> Self {
        let speeds = || scenario.pools.iter().filter(|pool| pool.max > 0).map(|pool| pool.speed);
        let (slowest, fastest) = (speeds().fold(f64::MAX, f64::min), speeds().fold(0.0, f64::max));
        let speed: f64 = scenario.pools.iter().map(|pool| f64::from(pool.max) * pool.speed).sum();
        let horizon = load.requests.iter().map(|request| request.deadline.secs()).fold(0.0, f64::max);
        let cell = (horizon / CELLS).max(1.0);
        let hopeless = |request: &Request| {
            let alone: Span = request.adapters + request.work.at(fastest);
            request.arrival + alone > request.deadline
        };
        let bid = |request: &Request| Bid {
            first: (request.arrival.secs() / cell) as usize,
            last: (request.deadline.secs() / cell) as usize,
            work: request.work.secs() + request.adapters.secs() * slowest,
            value: if hopeless(request) { 0.0 } else { value(request) },
        };
        let bids = load.requests.iter().map(bid).filter(|bid| bid.value > 0.0).collect();
        Self { bids, cells: (horizon / cell) as usize + 1, capacity: speed * cell }
    }

    /// The bound with these prices.
    fn with(&self, prices: &[f64]) -> f64 {
        let least = |bid: &Bid| prices[bid.first..=bid.last].iter().copied().fold(f64::MAX, f64::min);
        let gains: f64 = self.bids.iter().map(|bid| (bid.value - bid.work * least(bid)).max(0.0)).sum();
        self.capacity * prices.iter().sum::<f64>() + gains
    }

    fn prices(&self) -> Vec<f64> {
        let worth = |bid: &Bid| bid.value / bid.work.max(1e-9);
        let mut order: Vec<usize> = (0..self.bids.len()).collect();
        order.sort_by(|a, b| worth(&self.bids[*b]).total_cmp(&worth(&self.bids[*a])));
        let mut prices = vec![0.0; self.cells];
        let mut taken = vec![0.0; self.bids.len()];
        let mut level = &order[..];
        while let Some(best) = level.first() {
            let floor = worth(&self.bids[*best]) / LEVEL;
            let end = level.iter().position(|at| worth(&self.bids[*at]) < floor).unwrap_or(level.len());
            for at in &level[..end] {
                taken[*at] = self.bids[*at].work;
            }
            let price = worth(&self.bids[level[end - 1]]);
            for cell in self.fill(&mut taken) {
                // A cell that was full before keeps its higher price.
                if prices[cell] <= 0.0 {
                    prices[cell] = price;
                }
            }
            level = &level[end..];
        }
        prices
    }

    /// Draws as much as possible of what is taken, the earliest deadline first; takes back what does not fit, and names the
    /// cells that are full because of it.
    fn fill(&self, taken: &mut [f64]) -> Vec<usize> {
        let (drawn, short) = self.sweep(taken);
        let mut full = vec![false; self.cells];
        let mut known = vec![false; self.bids.len()];
        let mut open: Vec<usize> = short;
        let mut found = Vec::new();
        // Whoever is drawn in a full cell and could be drawn in another one: that one is full as well.
        while let Some(bid) = open.pop() {
            if std::mem::replace(&mut known[bid], true) {
                continue;
            }
            for cell in self.bids[bid].first..=self.bids[bid].last {
                if !std::mem::replace(&mut full[cell], true) {
                    found.push(cell);
                    open.extend(&drawn[cell]);
                }
            }
        }
        found
    }

    /// Who is drawn in each cell, and who came short.
    fn sweep(&self, taken: &mut [f64]) -> (Vec<Vec<usize>>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.bids.len()).filter(|at| taken[*at] > 0.0).collect();
        order.sort_by_key(|at| Reverse(self.bids[*at].first));
        let (mut drawn, mut short) = (vec![Vec::new(); self.cells], Vec::new());
        let mut waiting: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
        let mut left = taken.to_vec();
        for (cell, drawn) in drawn.iter_mut().enumerate() {
            while let Some(at) = order.pop_if(|at| self.bids[*at].first == cell) {
                waiting.push(Reverse((self.bids[at].last, at)));
            }
            let mut room = self.capacity;
            while room > 0.0 {
                let Some(Reverse((_, at))) = waiting.peek().copied() else { break };
                let part = left[at].min(room);
                room -= part;
                left[at] -= part;
                drawn.push(at);
                if left[at] <= 0.0 {
                    waiting.pop();
                }
            }
            while let Some(Reverse((last, at))) = waiting.peek().copied() {
                if last > cell {
                    break;
                }
                waiting.pop();
                taken[at] -= left[at];
                short.push(at);
            }
        }
        (drawn, short)
    }
}

#[cfg(test)]
mod tests;
