//! What `simulate` is asked: its flags and their help.

#![expect(clippy::doc_markdown, reason = "these comments are printed on terminals, which read no markdown")]

use std::path::PathBuf;

use clap::Args;
use easel_planner::simulate::policies;

/// The bound stands among the policies, though it draws nothing.
pub(crate) const BOUND: &str = "bound";
const MOST_SEEDS: u64 = 1000;

/// Runs a trace through a simulated fleet: what a policy would draw in time, and what that would cost.
///
/// It is the gateway's own code in virtual time, beside what other systems do. The trace is a CSV file, or one that is
/// made up in the shape of a published one. One policy and one seed give a page of figures; several give a row each, with
/// the mean of the seeds and its 95 % interval. docs/simulate.md says what a scenario holds and how to read the figures.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl easel simulate --scenario fleet.yaml --trace requests.csv
  kubectl easel simulate --scenario fleet.yaml --trace requests.csv --policy easel --seed 1 --json
  kubectl easel simulate --scenario fleet.yaml --generate 20000 --policy all --seeds 1..5
  kubectl easel simulate --list-policies")]
pub(crate) struct Simulate {
    /// Requests, oldest first: a CSV file with a header that names at least arrival_s, model, images and steps.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["generate", "list_policies"], conflicts_with = "generate")]
    pub(crate) trace: Option<PathBuf>,
    /// Make up so many requests in the shape of a published trace: 87 models, people in sessions, busy and quiet hours.
    #[arg(long, value_name = "REQUESTS", num_args = 0..=1, default_missing_value = "10000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) generate: Option<u32>,
    /// The fleet, how long drawing and loading take, deadlines and arrivals: a YAML file.
    #[arg(long, value_name = "FILE", required_unless_present = "list_policies")]
    pub(crate) scenario: Option<PathBuf>,
    /// Who decides: one name or several, with commas or by repeating the flag; `all` for every one.
    #[arg(long = "policy", value_name = "NAME", value_delimiter = ',', default_value = "easel", value_parser = policy)]
    pub(crate) policies: Vec<String>,
    /// For arrivals and for policies that draw lots.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Several seeds: FIRST..LAST, both included.
    #[arg(long, value_name = "FIRST..LAST", conflicts_with = "seed", value_parser = seeds)]
    pub(crate) seeds: Option<Seeds>,
    /// Poisson arrivals at this share of the fleet's speed, whatever the scenario says.
    #[arg(long, value_name = "SHARE")]
    pub(crate) rho: Option<f64>,
    /// Print one JSON object on stdout; an array of them for several policies or seeds.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the policies' names with what each does, and end.
    #[arg(long)]
    pub(crate) list_policies: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) Vec<u64>);

impl Simulate {
    pub(crate) fn all_seeds(&self) -> Vec<u64> {
        self.seeds.as_ref().map_or_else(|| vec![self.seed], |seeds| seeds.0.clone())
    }

    /// Each once, in the order in which they were named.
    pub(crate) fn all_policies(&self) -> Vec<&str> {
        let every = || known().map(|(name, _)| name);
        let named = self.policies.iter().flat_map(|name| match name.as_str() {
            "all" => every().collect(),
            name => vec![name],
        });
        let mut policies = Vec::new();
        for name in named {
            if !policies.contains(&name) {
                policies.push(name);
            }
        }
        policies
    }
}

/// Policies and the bound, with what each is.
pub(crate) fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    let bound = (BOUND, "no policy: what even perfect knowledge could not pass");
    policies::ALL.iter().copied().chain([bound])
}

fn policy(name: &str) -> Result<String, String> {
    if name == "all" || known().any(|(known, _)| known == name) {
        return Ok(name.to_owned());
    }
    let meant = super::nearest(name, known().map(|(known, _)| known));
    Err(format!("there is no policy '{name}'{meant}; --list-policies says which there are"))
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || "write FIRST..LAST, such as 1..5".to_owned();
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let last: u64 = last.trim_start_matches('=').parse().map_err(|_| wrong())?;
    if first > last || last - first >= MOST_SEEDS {
        return Err(format!("the first must not be above the last, and at most {MOST_SEEDS} seeds are taken"));
    }
    Ok(Seeds((first..=last).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_with_both_ends() {
        assert_eq!(seeds("1..5").unwrap().0, [1, 2, 3, 4, 5]);
        assert_eq!(seeds("7..7").unwrap().0, [7]);
        for wrong in ["5..1", "1-5", "..", "1..x", "0..1000"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_policy_that_does_not_exist_is_answered_with_the_one_that_was_meant() {
        assert_eq!(policy("easel").unwrap(), "easel");
        assert!(policy("round-robbin").unwrap_err().contains("did you mean round-robin?"));
        assert!(!policy("zzzzzzzzzz").unwrap_err().contains("did you mean"));
    }
}
