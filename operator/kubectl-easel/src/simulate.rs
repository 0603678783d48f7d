//! `simulate`: a trace, a scenario and a policy in, numbers out. Reads files and prints; the planner simulates.

mod render;
mod scenario;
mod trace;

use std::io::Write;
use std::thread;

use anyhow::{Context, bail, ensure};
use easel_planner::simulate::{Load, Outcome, Row, Scenario, generate, policies, requests, simulate};

use crate::args;

/// Seeds of one call: bounds how long somebody waits for a slip of the keyboard.
const MOST_SEEDS: u64 = 1000;

/// One policy with one seed.
#[derive(Clone, Debug)]
struct Run {
    seed: u64,
    outcome: Outcome,
}

pub(crate) fn run(flags: &args::Simulate) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if flags.list_policies {
        return Ok(out.write_all(render::policies().as_bytes())?);
    }
    let names = names(&flags.policy)?;
    let path = flags.scenario.as_deref().context("--scenario names no file")?;
    let scenario = scenario::read(path).with_context(|| format!("failed to read the scenario '{}'", path.display()))?;
    let rows = rows(flags, &scenario)?;
    ensure!(!rows.is_empty(), "the trace has no row with status succeed, so there is nothing to simulate");
    let (first, last) = flags.seeds.unwrap_or((flags.seed, flags.seed));
    let runs = all(&scenario, &rows, &names, first..=last)?;
    let text = if flags.json { render::json(&scenario, &runs) } else { render::table(&scenario, &runs) };
    Ok(out.write_all(text.as_bytes())?)
}

fn rows(flags: &args::Simulate, scenario: &Scenario) -> anyhow::Result<Vec<Row>> {
    match (&flags.trace, flags.generate) {
        (Some(path), _) => trace::read(path, scenario.requests)
            .with_context(|| format!("failed to read the trace '{}'", path.display())),
        (None, Some(count)) => Ok(generate(count, flags.seed)),
        (None, None) => bail!("name a --trace, or --generate requests"),
    }
}

/// One after the other, so that a machine is not full of simulations; progress goes to whoever watches.
fn all(
    scenario: &Scenario,
    rows: &[Row],
    names: &[&'static str],
    seeds: std::ops::RangeInclusive<u64>,
) -> anyhow::Result<Vec<Run>> {
    let total = names.len() as u64 * (seeds.end() - seeds.start() + 1);
    let bar = if total > 1 { indicatif::ProgressBar::new(total) } else { indicatif::ProgressBar::hidden() };
    let mut runs = Vec::new();
    for name in names {
        for seed in seeds.clone() {
            let load = requests(scenario, rows, seed);
            runs.push(Run { seed, outcome: one(scenario, &load, name, seed)? });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn one(scenario: &Scenario, load: &Load, name: &str, seed: u64) -> anyhow::Result<Outcome> {
    // On a thread of its own: a simulation that dies shall say which one it was.
    let simulated = thread::scope(|scope| {
        let run = || policies::by_name(name, seed).map(|mut policy| simulate(scenario, load, &mut *policy));
        scope.spawn(run).join()
    });
    match simulated {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => bail!("there is no policy '{name}'"),
        Err(_) => bail!("the simulation of '{name}' with seed {seed} died; please report it with its files"),
    }
}

/// The names that were asked for, each once, in the order of the list of all.
fn names(asked: &[String]) -> anyhow::Result<Vec<&'static str>> {
    let all: Vec<&'static str> = policies::ALL.iter().map(|(name, _)| *name).collect();
    if asked.iter().any(|name| name == "all") {
        return Ok(all);
    }
    for name in asked {
        ensure!(all.contains(&name.as_str()), "there is no policy '{name}'; there are {}", all.join(", "));
    }
    Ok(all.into_iter().filter(|name| asked.iter().any(|asked| asked == name)).collect())
}

/// `1..5`, both included.
pub(crate) fn seeds(text: &str) -> Result<(u64, u64), String> {
    let parse = |part: &str| part.parse::<u64>().ok();
    let range = text.split_once("..").and_then(|(first, last)| Some((parse(first)?, parse(last)?)));
    match range {
        Some((first, last)) if first <= last && last - first < MOST_SEEDS => Ok((first, last)),
        Some(_) => Err(format!("the first must not be above the last, and there are at most {MOST_SEEDS}")),
        None => Err("write two whole numbers, such as 1..5".into()),
    }
}
