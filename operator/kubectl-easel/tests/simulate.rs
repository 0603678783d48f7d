//! `simulate` as people and programs run it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall panic, outside of #[test] functions too")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const FLEET: &str = "
pools:
- {name: a, replicas: 2, speed: 2, usd_per_hour: 2.5}
- {name: b, replicas: {min: 2, max: 2}, usd_per_hour: 1}
arrivals: {process: poisson, rho: 0.6}
";

fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-easel"));
    command.arg("simulate").args(arguments).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    assert!(output.stdout.is_empty(), "a refusal stands on stderr");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// A fleet and a trace of people who come in pairs.
fn bench() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("fleet.yaml"), FLEET).unwrap();
    let mut trace = "arrival_s,kind,user,model,loras,images,steps,status,exec_s\n".to_owned();
    for row in 0..300 {
        let status = if row % 50 == 49 { "failed" } else { "succeed" };
        let model = (row / 2) * 7 % 5;
        writeln!(trace, "{},txt_2_img,u{},m{model},{},{},30,{status},9", row * 20, row / 2, row % 2, 1 + row % 2)
            .unwrap();
    }
    fs::write(folder.path().join("trace.csv"), trace).unwrap();
    folder
}

const RUN: [&str; 4] = ["--scenario", "fleet.yaml", "--trace", "trace.csv"];

#[test]
fn one_run_is_one_object_with_every_key_that_is_promised() {
    let bench = bench();
    let policies = stdout(&simulate(bench.path(), &["--list-policies"]));
    let mut named = 0;
    for policy in policies.lines().map(|line| line.split_whitespace().next().unwrap()) {
        let run = json(&simulate(bench.path(), &[&RUN[..], &["--policy", policy, "--seed", "7", "--json"]].concat()));
        let run = run.as_object().unwrap();
        assert_eq!((run["policy"].as_str(), run["seed"].as_u64()), (Some(policy), Some(7)));
        assert_eq!(run["requests"], 294, "those that succeeded");
        let figures = "slo_attainment goodput_rps p50_s p95_s p99_s switches switch_share gpu_busy_share gpu_hours cost_usd \
                       usd_per_image_in_slo rejected lost weighted_attainment late";
        for key in figures.split_whitespace() {
            let value = run.get(key).unwrap_or_else(|| panic!("{policy} has no {key}"));
            assert!(value.is_number() || policy == "bound", "{policy}: {key} is {value}");
        }
        assert!((0.0..=1.0).contains(&run["slo_attainment"].as_f64().unwrap()));
        named += 1;
    }
    assert!(named >= 11, "{policies}");
}

#[test]
fn the_same_command_prints_the_same_to_the_last_digit() {
    let bench = bench();
    let run = |seed| {
        stdout(&simulate(bench.path(), &[&RUN[..], &["--policy", "power-of-two", "--seed", seed, "--json"]].concat()))
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn several_runs_have_a_row_each_with_mean_and_interval() {
    let bench = bench();
    let several = ["--policy", "easel,cheapest-feasible", "--policy", "bound", "--seeds", "1..3"];
    let found = json(&simulate(bench.path(), &[&RUN[..], &several, &["--json"]].concat()));
    assert_eq!(found.as_array().unwrap().len(), 9);
    for seed in 1..=3 {
        let of = |policy: &str| {
            let run = found.as_array().unwrap().iter().find(|run| run["policy"] == policy && run["seed"] == seed);
            run.unwrap()["slo_attainment"].as_f64().unwrap()
        };
        assert!(of("bound") >= of("easel") && of("bound") >= of("cheapest-feasible"));
    }

    let table = stdout(&simulate(bench.path(), &[&RUN[..], &several].concat()));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("policy") && lines[0].contains("to the bound"), "{table}");
    assert!(lines[1].starts_with("easel") && lines[1].contains('±'), "{table}");
    assert!(table.contains("Means of 3 seeds"), "{table}");
}

#[test]
fn one_run_for_people_says_what_was_missed_and_what_it_cost() {
    let bench = bench();
    let page = stdout(&simulate(bench.path(), &RUN));
    for part in ["easel (seed 1, 294 requests, Poisson arrivals at rho 0.6)", "refused", "2 images", "drawing +", "p95"]
    {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
}

#[test]
fn a_refusal_names_the_file_the_field_and_the_mend() {
    let bench = bench();
    let write = |name: &str, text: &str| fs::write(bench.path().join(name), text).unwrap();
    write("typo.yaml", &FLEET.replace("speed", "sped"));
    write("batch.yaml", &format!("{FLEET}batch: 4\n"));
    write("zero.yaml", &FLEET.replace("speed: 2", "speed: 0"));
    write("bad.csv", "arrival_s,model,images,steps\n0,m,1,30\n1,m,none,30\n");
    let run = |scenario, trace| refused(&simulate(bench.path(), &["--scenario", scenario, "--trace", trace]));
    let cases = [
        (
            run("typo.yaml", "trace.csv"),
            "the scenario 'typo.yaml' can't be simulated: pools[0].sped is not a key of a scenario; did you mean speed?",
        ),
        (run("batch.yaml", "trace.csv"), "batch is 4; batches are not simulated"),
        (run("zero.yaml", "trace.csv"), "pools[0].speed is 0; it must be more than 0"),
        (
            run("fleet.yaml", "bad.csv"),
            "the trace 'bad.csv' can't be simulated: line 3: column images: 'none' is not a whole number",
        ),
        (run("none.yaml", "trace.csv"), "failed to read the scenario 'none.yaml'"),
        (
            refused(&simulate(bench.path(), &[&RUN[..], &["--rho=-1"]].concat())),
            "arrivals.rho is -1; it must be more than 0",
        ),
        (refused(&simulate(bench.path(), &[&RUN[..], &["--policy", "easle"]].concat())), "did you mean easel?"),
        (refused(&simulate(bench.path(), &["--scenario", "fleet.yaml"])), "--trace"),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
}

#[test]
fn a_generated_trace_has_the_published_shape() {
    let bench = bench();
    let flags = ["--scenario", "fleet.yaml", "--generate", "10000", "--policy", "least-request", "--json"];
    let run = json(&simulate(bench.path(), &flags));
    let requests = run["requests"].as_f64().unwrap();
    assert!((requests - 10_000.0).abs() < 0.5);
    let share = |part: &Value| part["requests"].as_f64().unwrap() / requests;
    let images: BTreeMap<u64, f64> = run["by_images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["images"].as_u64().unwrap(), share(part)))
        .collect();
    for (count, published) in [(1, 0.58), (2, 0.08), (4, 0.19), (8, 0.15)] {
        assert!((images[&count] - published).abs() < 0.02, "{count} images: {images:?}");
    }
    let mut models: Vec<f64> = run["models_of_100_requests"].as_array().unwrap().iter().map(share).collect();
    models.sort_by(|a, b| b.total_cmp(a));
    let top: f64 = models[..10].iter().sum();
    assert!((models[0] - 0.31).abs() < 0.04 && (top - 0.87).abs() < 0.04, "{models:?}");
}
