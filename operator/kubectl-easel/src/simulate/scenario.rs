//! The scenario file: what people write as YAML, and the scenario that it means. Refuses what it does not know.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use easel_planner::simulate::{Arrivals, Execution, PoolSpec, Process, Scenario, Slo};
use easel_planner::snapshot::Capacity;
use easel_planner::time::Span;
use easel_planner::units::MicroUsdPerHour;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pools: Vec<Pool>,
    #[serde(default)]
    execution: ExecutionFile,
    #[serde(default)]
    load: LoadFile,
    #[serde(default)]
    slo: SloFile,
    #[serde(default)]
    arrivals: ArrivalsFile,
    /// Of the trace; left out: all of them.
    requests: Option<usize>,
    /// Requests that a replica draws at once.
    #[serde(default = "one")]
    batch: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    name: String,
    replicas: Option<Replicas>,
    min: Option<u32>,
    max: Option<u32>,
    #[serde(default = "unit")]
    speed: f64,
    #[serde(default)]
    usd_per_hour: f64,
    #[serde(default)]
    capacity: CapacityFile,
    #[serde(default = "one")]
    resident_slots: usize,
    #[serde(default)]
    host_slots: usize,
    #[serde(default = "start")]
    start_s: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Replicas {
    Fixed(u32),
    Between { min: u32, max: u32 },
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CapacityFile {
    #[default]
    OnDemand,
    Spot,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExecutionFile {
    seconds_at_30_steps_1_image: f64,
    first_image_share: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "they are the file's keys, which say their unit")]
struct LoadFile {
    base_model_s: f64,
    lora_s: f64,
    host_to_gpu_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SloFile {
    factor: f64,
    slack_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ArrivalsFile {
    process: ProcessFile,
    rho: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProcessFile {
    Trace,
    Poisson,
}

/// Medians of the published production trace, where a file says nothing.
impl Default for ExecutionFile {
    fn default() -> Self {
        Self { seconds_at_30_steps_1_image: 9.0, first_image_share: 0.25 }
    }
}

impl Default for LoadFile {
    fn default() -> Self {
        Self { base_model_s: 22.0, lora_s: 4.4, host_to_gpu_s: 3.0 }
    }
}

impl Default for SloFile {
    fn default() -> Self {
        Self { factor: 3.0, slack_s: 5.0 }
    }
}

impl Default for ArrivalsFile {
    fn default() -> Self {
        Self { process: ProcessFile::Trace, rho: 0.5 }
    }
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

/// A pod with a large image on a node that is there.
fn start() -> f64 {
    60.0
}

pub(super) fn read(path: &Path) -> anyhow::Result<Scenario> {
    parse(&fs::read_to_string(path)?)
}

fn parse(text: &str) -> anyhow::Result<Scenario> {
    let file: File = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.into_inner());
        if path == "." { anyhow::anyhow!("{inner}") } else { anyhow::anyhow!("{path}: {inner}") }
    })?;
    if file.batch != 1 {
        bail!("batch is {}: only replicas that draw one request at a time are simulated; leave batch out", file.batch);
    }
    let scenario = Scenario {
        pools: file.pools.iter().enumerate().map(|(at, pool)| read_pool(at, pool)).collect::<Result<_, _>>()?,
        execution: Execution {
            seconds_at_30_steps: file.execution.seconds_at_30_steps_1_image,
            first_image_share: file.execution.first_image_share,
        },
        load_from_store: seconds("load.base_model_s", file.load.base_model_s)?,
        load_from_host: seconds("load.host_to_gpu_s", file.load.host_to_gpu_s)?,
        load_adapter: seconds("load.lora_s", file.load.lora_s)?,
        slo: Slo { factor: file.slo.factor, slack: seconds("slo.slack_s", file.slo.slack_s)? },
        arrivals: Arrivals {
            process: match file.arrivals.process {
                ProcessFile::Trace => Process::Trace,
                ProcessFile::Poisson => Process::Poisson,
            },
            rho: file.arrivals.rho,
        },
        requests: file.requests.unwrap_or(usize::MAX),
    };
    scenario.check()?;
    Ok(scenario)
}

fn read_pool(at: usize, pool: &Pool) -> anyhow::Result<PoolSpec> {
    let (min, max) = match (pool.replicas, pool.min, pool.max) {
        (Some(Replicas::Fixed(replicas)), None, None) => (replicas, replicas),
        (Some(Replicas::Between { min, max }), None, None) => (min, max),
        (None, min, Some(max)) => (min.unwrap_or(0), max),
        (Some(_), _, _) => bail!("pools[{at}]: write replicas, or min and max beside each other, not both"),
        (None, _, None) => bail!("pools[{at}]: write replicas: 4, or replicas: {{min: 0, max: 4}}"),
    };
    Ok(PoolSpec {
        name: pool.name.clone(),
        min,
        max,
        speed: pool.speed,
        price: price(at, pool.usd_per_hour)?,
        capacity: match pool.capacity {
            CapacityFile::OnDemand => Capacity::OnDemand,
            CapacityFile::Spot => Capacity::Spot,
        },
        resident_slots: pool.resident_slots,
        host_slots: pool.host_slots,
        start: seconds(&format!("pools[{at}].start_s"), pool.start_s)?,
    })
}

fn price(at: usize, dollars: f64) -> anyhow::Result<MicroUsdPerHour> {
    // YAML has no decimals; six of them are exact up to a price that nobody pays.
    let text = format!("{dollars:.6}");
    MicroUsdPerHour::from_dollars(&text).with_context(|| format!("pools[{at}].usd_per_hour"))
}

fn seconds(field: &str, value: f64) -> anyhow::Result<Span> {
    if value.is_finite() && value >= 0.0 {
        Ok(Span::from_secs(value))
    } else {
        bail!("{field} is {value}; it must be 0 or more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "
pools:
  - {name: fast, replicas: 4, speed: 2, usd_per_hour: 4.10, capacity: on-demand, resident_slots: 1}
  - {name: spare, replicas: {min: 0, max: 8}, speed: 0.5, usd_per_hour: 0.99, capacity: spot, resident_slots: 2, host_slots: 4}
execution: {seconds_at_30_steps_1_image: 9, first_image_share: 0.25}
load: {base_model_s: 22, lora_s: 4.4, host_to_gpu_s: 3}
slo: {factor: 3, slack_s: 5}
arrivals: {process: poisson, rho: 0.6}
requests: 17000
";

    #[test]
    fn a_scenario_is_read_whole() {
        let read = parse(REFERENCE).unwrap();
        let [fast, spare] = &read.pools[..] else { panic!("{:?}", read.pools) };
        assert_eq!((fast.min, fast.max, fast.price), (4, 4, MicroUsdPerHour::new(4_100_000)));
        assert_eq!((spare.min, spare.max, spare.capacity, spare.host_slots), (0, 8, Capacity::Spot, 4));
        assert_eq!((read.load_adapter, read.requests), (Span::from_secs(4.4), 17_000));
        assert_eq!(read.arrivals, Arrivals { process: Process::Poisson, rho: 0.6 });
    }

    #[test]
    fn min_and_max_may_stand_beside_the_name_and_most_keys_may_be_left_out() {
        let read = parse("pools: [{name: a, min: 1, max: 3}]").unwrap();
        assert_eq!((read.pools[0].min, read.pools[0].max, read.pools[0].resident_slots), (1, 3, 1));
        assert_eq!(read.load_from_store, Span::from_secs(22.0));
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_name() {
        for (text, expected) in [
            ("pools: []", "there is no pool"),
            ("pools: [{name: a}]", "pools[0]: write replicas"),
            ("pools: [{name: a, replicas: 1, speed: 0}]", "pools[0].speed is 0"),
            ("pools: [{name: a, replicas: 1, sped: 2}]", "unknown field `sped`"),
            ("pools: [{name: a, replicas: 1, usd_per_hour: -1}]", "pools[0].usd_per_hour"),
            ("pools: [{name: a, replicas: 1, capacity: cheap}]", "pools[0].capacity"),
            ("pools: [{name: a, replicas: 1}]\nload: {lora_s: -1}", "load.lora_s is -1"),
            ("pools: [{name: a, replicas: 1}]\nbatch: 4", "batch is 4"),
            ("pools: [{name: a, replicas: 1}]\nrequests: 0", "requests is 0"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
