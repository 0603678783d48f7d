//! `simulate`: reads a scenario and a trace, runs policies over them, prints what came of it.
//! Knows files and tables; every decision and every second is the planner crate's.

mod flags;
mod page;
mod progress;
mod report;
mod sample;
mod scenario_file;
mod summary;
mod table;
mod trace;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use easel_planner::simulate::{self, Arrivals, Load, Process, Row, Scenario, policies};

pub(crate) use flags::Simulate;
use flags::{BOUND, known};
use report::Report;
use summary::Summary;

pub(crate) fn run(flags: &Simulate) -> anyhow::Result<()> {
    if flags.list_policies {
        for (name, what) in known() {
            println!("{name:22} {what}");
        }
        return Ok(());
    }
    let Some(file) = &flags.scenario else { bail!("name the fleet with --scenario FILE") };
    let mut scenario = read(file, "scenario", scenario_file::parse)?;
    if let Some(rho) = flags.rho {
        scenario.arrivals = Arrivals { process: Process::Poisson, rho };
    }
    scenario.check().with_context(|| format!("the scenario '{}' can't be simulated", file.display()))?;
    let runs = runs(flags, &scenario)?;
    print(flags, &runs)
}

fn runs(flags: &Simulate, scenario: &Scenario) -> anyhow::Result<Vec<Report>> {
    let recorded = match &flags.trace {
        Some(file) => Some(in_order(scenario, read(file, "trace", trace::parse)?)),
        None => None,
    };
    let (policies, seeds) = (flags.all_policies(), flags.all_seeds());
    let progress = progress::Progress::new(policies.len() * seeds.len());
    let mut runs = Vec::new();
    for seed in seeds {
        let load = match &recorded {
            Some(rows) => simulate::requests(scenario, rows, seed),
            None => generated(scenario, flags.generate.unwrap_or_default(), seed),
        };
        for name in &policies {
            progress.at(name, seed);
            runs.push(one(scenario, &load, name, seed)?);
        }
    }
    progress.finish();
    Ok(runs)
}

fn one(scenario: &Scenario, load: &Load, name: &str, seed: u64) -> anyhow::Result<Report> {
    if name == BOUND {
        let counted = simulate::bound(scenario, load, |_| 1.0);
        let weighted = simulate::bound(scenario, load, |request| request.work.secs());
        return Ok(Report::bound(load.requests.len() as u64, counted, weighted, scenario.arrivals, seed));
    }
    let mut policy = policies::by_name(name, seed).with_context(|| format!("there is no policy '{name}'"))?;
    let outcome = simulate::simulate(scenario, load, &mut *policy);
    Ok(Report::of(outcome, scenario.arrivals, seed))
}

/// As many as are asked for, in the order of the trace; then in that of time, where the trace says when.
fn in_order(scenario: &Scenario, mut rows: Vec<Row>) -> Vec<Row> {
    rows.truncate(scenario.requests);
    match scenario.arrivals.process {
        Process::Trace => rows.sort_by_key(|row| row.arrival),
        Process::Poisson | Process::Curve => {}
    }
    rows
}

/// Busy and quiet hours at the scenario's share of the fleet's speed; or Poisson arrivals over the same requests.
fn generated(scenario: &Scenario, requests: u32, seed: u64) -> Load {
    let rate = simulate::steady_rate(scenario, &simulate::generate(requests, 1.0, seed));
    simulate::requests(scenario, &simulate::generate(requests, rate, seed), seed)
}

fn print(flags: &Simulate, runs: &[Report]) -> anyhow::Result<()> {
    match (runs, flags.json) {
        ([run], true) => println!("{}", serde_json::to_string_pretty(run)?),
        (runs, true) => println!("{}", serde_json::to_string_pretty(runs)?),
        ([run], false) => print!("{}", page::page(run)),
        (runs, false) => print!("{}", table::table(&Summary::of(runs))),
    }
    Ok(())
}

fn read<T>(file: &Path, what: &str, parse: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read the {what} '{}'", file.display()))?;
    parse(&text).with_context(|| format!("the {what} '{}' can't be simulated", file.display()))
}

/// `; did you mean X?` where one is near enough.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 1 + known.len() / 4 => format!("; did you mean {known}?"),
        Some(_) | None => String::new(),
    }
}
