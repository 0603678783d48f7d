//! A scenario from YAML: every key is known or refused by name, and what is absent has the default that docs/simulate.md
//! states. Knows the file; what may be simulated is the planner's to say.

mod keys;

use anyhow::{anyhow, bail};
use easel_planner::simulate::{Arrivals, Curve, Execution, Faults, PoolSpec, Process, Rates, Scenario, Slo};
use easel_planner::snapshot::Capacity;
use easel_planner::time::Span;
use easel_planner::units::MicroUsdPerHour;
use serde_json::Value;

use keys::{CapacityKey, FaultKeys, File, LoadKeys, Number, Pool, ProcessKey, Replicas};

pub(crate) fn parse(text: &str) -> anyhow::Result<Scenario> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| anyhow!("it is not YAML: {error}"))?;
    if !value.is_object() {
        bail!("it must hold keys: pools, and what docs/simulate.md lists beside them");
    }
    let file: File = serde_path_to_error::deserialize(value).map_err(|error| explain(&error))?;
    scenario(file)
}

fn scenario(file: File) -> anyhow::Result<Scenario> {
    let File { pools, execution, load, slo, arrivals, requests, faults, batch } = file;
    alone("batch", batch)?;
    alone("execution.batch", execution.batch)?;
    let pools = pools.into_iter().enumerate().map(|(at, pool)| pool_spec(at, pool));
    let LoadKeys { base_model_s, lora_s, host_to_gpu_s } = load;
    let process = match (arrivals.process, arrivals.rho) {
        (Some(ProcessKey::Curve), _) => Process::Curve,
        (Some(ProcessKey::Poisson), _) | (None, Some(_)) => Process::Poisson,
        (Some(ProcessKey::Trace), _) | (None, None) => Process::Trace,
    };
    Ok(Scenario {
        pools: pools.collect::<anyhow::Result<_>>()?,
        execution: Execution {
            seconds_at_30_steps: execution.seconds_at_30_steps_1_image,
            first_image_share: execution.first_image_share,
        },
        load_from_store: seconds("load.base_model_s", base_model_s)?,
        load_from_host: seconds("load.host_to_gpu_s", host_to_gpu_s)?,
        load_adapter: seconds("load.lora_s", lora_s)?,
        slo: Slo { factor: slo.factor, slack: seconds("slo.slack_s", slo.slack_s)? },
        arrivals: Arrivals { process, rho: arrivals.rho.unwrap_or(keys::RHO) },
        curve: Curve { points: arrivals.points, mean_rps: arrivals.mean_rps.unwrap_or_default() },
        requests: requests.unwrap_or(usize::MAX),
        faults: Faults { rates: rates(&faults)?, ..Faults::default() },
    })
}

fn rates(keys: &FaultKeys) -> anyhow::Result<Rates> {
    let FaultKeys {
        loss_per_hour,
        reclaim_per_hour,
        notice_s,
        slow_per_hour,
        slow_factor,
        slow_s,
        torn_download_per_hour,
    } = *keys;
    // More than one a second on average would leave no replica that does anything.
    for (name, rate) in [
        ("loss_per_hour", loss_per_hour),
        ("reclaim_per_hour", reclaim_per_hour),
        ("slow_per_hour", slow_per_hour),
        ("torn_download_per_hour", torn_download_per_hour),
    ] {
        if !(0.0..=3600.0).contains(&rate) {
            bail!("faults.{name} is {rate}; it must be 0 to 3600 for each replica");
        }
    }
    if !(0.01..=1.0).contains(&slow_factor) {
        bail!("faults.slow_factor is {slow_factor}; it must be 0.01 to 1 of the replica's speed");
    }
    Ok(Rates {
        loss: loss_per_hour,
        reclaim: reclaim_per_hour,
        notice: seconds("faults.notice_s", notice_s)?,
        slow: slow_per_hour,
        slow_factor,
        slow_lasts: seconds("faults.slow_s", slow_s)?,
        torn_download: torn_download_per_hour,
    })
}

fn pool_spec(at: usize, pool: Pool) -> anyhow::Result<PoolSpec> {
    let Pool { name, replicas, min, max, speed, usd_per_hour, capacity, resident_slots, host_slots, start_s, batch } =
        pool;
    let field = |name: &str| format!("pools[{at}].{name}");
    alone(&field("batch"), batch)?;
    let (min, max) = match (replicas, min, max) {
        (Some(Replicas::Fixed(fixed)), None, None) => (fixed, fixed),
        (Some(Replicas::Between { min, max }), None, None) | (None, Some(min), Some(max)) => (min, max),
        (None, None, Some(max)) => (0, max),
        (None, Some(_), None) => bail!("{} is absent; with min, say how many replicas there may be", field("max")),
        (None, None, None) => bail!("{} is absent; write a number, or min and max", field("replicas")),
        (Some(_), _, _) => bail!("{} and min or max are both given; keep one of them", field("replicas")),
    };
    Ok(PoolSpec {
        name: name.unwrap_or_else(|| format!("pool-{}", at + 1)),
        min,
        max,
        speed,
        price: price(&field("usd_per_hour"), &usd_per_hour)?,
        capacity: match capacity {
            CapacityKey::OnDemand => Capacity::OnDemand,
            CapacityKey::Spot => Capacity::Spot,
        },
        resident_slots,
        host_slots,
        start: seconds(&field("start_s"), start_s)?,
    })
}

/// From the text of the number, so that no float comes between the file and the bill.
fn price(field: &str, Number(text): &Number) -> anyhow::Result<MicroUsdPerHour> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    MicroUsdPerHour::from_dollars(text).map_err(|error| anyhow!("{field}: {error}"))
}

fn seconds(field: &str, value: f64) -> anyhow::Result<Span> {
    // A week.
    if (0.0..=604_800.0).contains(&value) {
        return Ok(Span::from_secs(value));
    }
    bail!("{field} is {value}; it must be 0 to 604800 seconds")
}

fn alone(field: &str, batch: Option<u32>) -> anyhow::Result<()> {
    match batch {
        None | Some(1) => Ok(()),
        Some(batch) => {
            bail!("{field} is {batch}; batches are not simulated: a replica draws one request at a time. Remove it")
        }
    }
}

/// Where it is, what is wrong, and which key was meant.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> anyhow::Error {
    let (path, text) = (error.path().to_string(), error.inner().to_string());
    let Some(unknown) = text.strip_prefix("unknown field `") else {
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        return anyhow!("{place}{text}");
    };
    let mut names = unknown.split('`').step_by(2);
    let wrong = names.next().unwrap_or_default();
    let known: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    let meant = super::nearest(wrong, known.iter().copied());
    // The path of an unknown key ends with it.
    let place = if path == "." { wrong } else { &path };
    anyhow!("{place} is not a key of a scenario{meant} Known here: {}", known.join(", "))
}

#[cfg(test)]
mod tests;
