//! Turns a trace into what arrives: when, how much work, by when. Owns the seed.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::demand::ModelIx;
use crate::simulate::{Curve, Load, Process, Request, Row, Scenario, by_popularity};
use crate::time::{Moment, Span};

/// The first rows of the trace, as many as the scenario asks for, with the arrivals that it says.
pub fn requests(scenario: &Scenario, rows: &[Row], seed: u64) -> Load {
    let rows = &rows[..rows.len().min(scenario.requests)];
    let models = by_popularity(rows.iter().map(|row| row.model.as_str()));
    let rate = steady_rate(scenario, rows);
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut clock = 0.0;
    let request = |row: &Row| {
        let arrival = match scenario.arrivals.process {
            Process::Trace => row.arrival,
            Process::Poisson => {
                // 1 - u lies in (0, 1], so the logarithm is finite.
                clock -= (1.0 - random.random::<f64>()).ln() / rate;
                Moment::from_secs(clock)
            }
            Process::Curve => {
                clock = after(&scenario.curve, clock, &mut random);
                Moment::from_secs(clock)
            }
        };
        let work = scenario.execution.work(row.steps, row.images);
        let model = models.iter().position(|name| *name == row.model).unwrap_or(0);
        Request {
            arrival,
            model: ModelIx(u32::try_from(model).unwrap_or(u32::MAX)),
            images: row.images,
            steps: row.steps,
            work,
            adapters: scenario.load_adapter.times(f64::from(row.loras)),
            deadline: arrival + work.times(scenario.slo.factor) + scenario.slo.slack,
        }
    };
    let requests = rows.iter().map(request).collect();
    Load { requests, models }
}

/// The next arrival by thinning: candidates come at the highest rate, and each stays with the share that its moment has of it.
fn after(curve: &Curve, mut clock: f64, random: &mut Pcg64Mcg) -> f64 {
    let most = curve.most();
    let rate = most / curve.mean() * curve.mean_rps;
    loop {
        clock -= (1.0 - random.random::<f64>()).ln() / rate;
        if random.random::<f64>() * most < curve.at(clock) {
            return clock;
        }
    }
}

/// Requests a second at which the scenario's share of all replicas' speed is drawing; pools count with their most replicas.
pub fn steady_rate(scenario: &Scenario, rows: &[Row]) -> f64 {
    let work: Span = rows.iter().map(|row| scenario.execution.work(row.steps, row.images)).sum();
    let mean = work.secs() / rows.len().max(1) as f64;
    let speed: f64 = scenario.pools.iter().map(|pool| f64::from(pool.max) * pool.speed).sum();
    if mean > 0.0 { scenario.arrivals.rho * speed / mean } else { 0.0 }
}
