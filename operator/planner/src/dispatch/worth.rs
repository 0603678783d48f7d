//! What a checkpoint on a device is worth: the loads that it saves, by the demand that is expected.
//! Knows rates and how much of the fleet holds what; does not know jobs.

use crate::demand::{Demand, ModelIx};
use crate::dispatch::{Loads, Replica};
use crate::time::Moment;

/// How far ahead a load is worth something. Longer than a load, so that a model which is asked for once a minute keeps its
/// place against one that is asked for once an hour; short, because the fleet turns to other models in minutes.
const HORIZON: f64 = 40.0;
/// A load that will perhaps be needed counts for half of one that is needed now.
const DOUBT: f64 = 0.5;
/// Less speed than this can't be told from a replica that is mostly busy.
const LEAST_SPEED: f64 = 0.5;

/// By model; made for one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worth {
    rates: Vec<f64>,
    held: Vec<f64>,
    prices: Vec<f64>,
    load: f64,
}

impl Worth {
    pub fn at(now: Moment, demand: &Demand, replicas: &[Replica], loads: Loads) -> Self {
        let rates: Vec<f64> = demand.models().map(|model| demand.per_second(model, now)).collect();
        let mut held = vec![0.0; rates.len()];
        for replica in replicas.iter().filter(|replica| !replica.closed) {
            for model in replica.held.device() {
                if let Some(held) = held.get_mut(model.0 as usize) {
                    *held += replica.speed;
                }
            }
        }
        let load = loads.from_store.secs();
        let mut worth = Self { rates, held, prices: Vec::new(), load };
        worth.prices = demand.models().map(|model| worth.copy(model, 0.0)).collect();
        worth
    }

    /// Seconds of work that evicting one copy will cost.
    pub(super) fn price(&self, model: ModelIx) -> f64 {
        self.prices.get(model.0 as usize).copied().unwrap_or(0.0)
    }

    /// The same with so much more speed that holds it.
    pub(super) fn copy(&self, model: ModelIx, more: f64) -> f64 {
        let rate = self.rate(model);
        if rate <= 0.0 {
            return 0.0;
        }
        let speed = (self.held[model.0 as usize] + more).max(LEAST_SPEED);
        DOUBT * self.load * (1.0 - (-rate * HORIZON / speed).exp())
    }

    pub(super) fn rate(&self, model: ModelIx) -> f64 {
        self.rates.get(model.0 as usize).copied().unwrap_or(0.0)
    }

    pub(super) fn held(&self, model: ModelIx) -> f64 {
        self.held.get(model.0 as usize).copied().unwrap_or(0.0)
    }

    pub(super) fn models(&self) -> impl Iterator<Item = ModelIx> {
        (0..self.rates.len()).map(|at| ModelIx(u32::try_from(at).unwrap_or(u32::MAX)))
    }
}
