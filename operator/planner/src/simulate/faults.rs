//! What goes wrong in a simulated fleet, and when: a list, and rates an hour of each replica's life by seed.
//! Says only which replica is hit by what; what that does is the world's.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::simulate::Scenario;
use crate::snapshot::Capacity;
use crate::time::{Moment, Span};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// In the order of their time.
    pub list: Vec<Fault>,
    pub rates: Rates,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    pub at: Moment,
    /// The how-manieth of the replicas that exist then; counted round.
    pub replica: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// The replica is gone at once.
    Loss,
    /// A spot replica is gone after a notice; others are not reclaimed.
    Reclaim { notice: Span },
    /// Draws at so much of its speed, for a time.
    Slow { factor: f64, lasts: Span },
    /// Its next load takes twice as long.
    TornDownload,
}

/// Events an hour of a replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub loss: f64,
    /// Of a spot replica.
    pub reclaim: f64,
    pub notice: Span,
    pub slow: f64,
    pub slow_factor: f64,
    pub slow_lasts: Span,
    pub torn_download: f64,
}

impl Default for Rates {
    /// Nothing goes wrong. Two minutes are the notice that the clouds give.
    fn default() -> Self {
        Self {
            loss: 0.0,
            reclaim: 0.0,
            notice: Span::from_secs(120.0),
            slow: 0.0,
            slow_factor: 0.5,
            slow_lasts: Span::from_secs(300.0),
            torn_download: 0.0,
        }
    }
}

impl Faults {
    pub fn is_none(&self) -> bool {
        let Rates { loss, reclaim, notice: _, slow, slow_factor: _, slow_lasts: _, torn_download } = self.rates;
        self.list.is_empty() && loss + reclaim + slow + torn_download <= 0.0
    }
}

/// Who is hit: one of the list by its place among those that exist, one of the rates by its place in the whole table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    Existing(usize),
    Slot(usize),
}

/// The list and the rates as one stream of times.
#[derive(Debug)]
pub(super) struct Stream {
    list: Vec<Fault>,
    listed: usize,
    rates: Rates,
    slots: usize,
    random: Pcg64Mcg,
    clock: f64,
    next: Option<(Moment, Target, FaultKind)>,
}

impl Stream {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut list = scenario.faults.list.clone();
        list.sort_by_key(|fault| fault.at);
        let slots = scenario.pools.iter().map(|pool| pool.max as usize).sum();
        let random = Pcg64Mcg::seed_from_u64(scenario.faults.seed);
        let rates = scenario.faults.rates;
        let mut stream = Self { list, listed: 0, rates, slots, random, clock: 0.0, next: None };
        stream.next = stream.draw();
        stream
    }

    pub(super) fn next(&mut self) -> Option<(Moment, Target, FaultKind)> {
        let listed = self.list.get(self.listed).map(|fault| (fault.at, Target::Existing(fault.replica), fault.kind));
        match (listed, self.next) {
            (Some(listed), drawn) if drawn.is_none_or(|drawn| listed.0 <= drawn.0) => {
                self.listed += 1;
                Some(listed)
            }
            (_, drawn) => {
                self.next = self.draw();
                drawn
            }
        }
    }

    /// Events fall on all slots of the table at one rate; those that fall on a slot where nobody is are void, so that every
    /// replica is hit at the rate, however many there are.
    fn draw(&mut self) -> Option<(Moment, Target, FaultKind)> {
        let Rates { loss, reclaim, notice, slow, slow_factor, slow_lasts, torn_download } = self.rates;
        let total = loss + reclaim + slow + torn_download;
        if total <= 0.0 || self.slots == 0 {
            return None;
        }
        let rate = total * self.slots as f64 / 3600.0;
        self.clock -= (1.0 - self.random.random::<f64>()).ln() / rate;
        let slot = (self.random.random::<f64>() * self.slots as f64) as usize;
        let which = self.random.random::<f64>() * total;
        let kind = if which < loss {
            FaultKind::Loss
        } else if which < loss + reclaim {
            FaultKind::Reclaim { notice }
        } else if which < loss + reclaim + slow {
            FaultKind::Slow { factor: slow_factor, lasts: slow_lasts }
        } else {
            FaultKind::TornDownload
        };
        Some((Moment::from_secs(self.clock), Target::Slot(slot), kind))
    }
}

/// Whether a replica of this kind can be hit by it.
pub(super) fn hits(kind: FaultKind, capacity: Capacity) -> bool {
    match kind {
        FaultKind::Reclaim { .. } => capacity == Capacity::Spot,
        FaultKind::Loss | FaultKind::Slow { .. } | FaultKind::TornDownload => true,
    }
}
