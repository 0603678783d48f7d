//! What an elastic fleet costs over a day: Easel's autoscaler beside Knative's, Kubernetes' and fixed fleets.
//! `cargo run --release -p easel-planner --example elastic -- TRACE.csv CURVE.csv`; `make bench-elastic` runs it.

use std::fmt::Write as _;

use easel_planner::simulate::policies::{self, Easel, Settings, scaled, scalers};
use easel_planner::simulate::{
    Arrivals, Curve, Execution, Faults, Load, Outcome, Policy, PoolSpec, Process, Rates, Row, Scenario, Slo, requests,
    simulate,
};
use easel_planner::snapshot::Capacity;
use easel_planner::time::{Moment, Span};
use easel_planner::units::MicroUsdPerHour;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
const AIM: f64 = 0.95;
const MOST: u32 = 100;

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [trace, curve, rest @ ..] = files.as_slice() else {
        eprintln!("usage: elastic TRACE.csv CURVE.csv [hours|money]");
        std::process::exit(2);
    };
    let (rows, points) = (rows(trace), points(curve));
    let which = rest.first().map_or("all", String::as_str);
    if which != "money" {
        hours(&rows, &points);
    }
    if which != "hours" {
        money(&rows, &points);
    }
}

fn read(path: &str) -> Vec<Vec<String>> {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("failed to read {path}: {error}"));
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Columns as the trace's README says; only what succeeded is asked for again.
fn rows(path: &str) -> Vec<Row> {
    let number = |text: &str| text.parse().unwrap_or(1);
    let row = |cells: &Vec<String>| Row {
        arrival: Moment::from_secs(cells[0].parse().unwrap_or(0.0)),
        model: cells[3].clone(),
        user: cells[2].clone(),
        loras: cells[4].parse().unwrap_or(0),
        images: number(&cells[5]),
        steps: number(&cells[6]),
    };
    read(path).iter().filter(|cells| cells.get(7).is_some_and(|status| status == "succeed")).map(row).collect()
}

fn points(path: &str) -> Vec<(f64, f64)> {
    let point = |cells: &Vec<String>| Some((cells.first()?.parse().ok()?, cells.get(1)?.parse().ok()?));
    read(path).iter().filter_map(point).collect()
}

fn pool(name: &str, replicas: (u32, u32), price: &str, capacity: Capacity) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        min: replicas.0,
        max: replicas.1,
        speed: 1.0,
        price: MicroUsdPerHour::from_dollars(price).unwrap_or_default(),
        capacity,
        resident_slots: 1,
        host_slots: 0,
        start: Span::from_secs(60.0),
    }
}

/// The reference execution, loads and deadlines, over one round of the curve with every row of the trace once.
fn scenario(pools: Vec<PoolSpec>, rows: &[Row], points: &[(f64, f64)]) -> Scenario {
    let mut curve = Curve { points: points.to_vec(), mean_rps: 1.0 };
    curve.mean_rps = rows.len() as f64 / curve.period();
    Scenario {
        pools,
        execution: Execution { seconds_at_30_steps: 9.0, first_image_share: 0.25 },
        load_from_store: Span::from_secs(22.0),
        load_from_host: Span::from_secs(3.0),
        load_adapter: Span::from_secs(4.4),
        slo: Slo { factor: 3.0, slack: Span::from_secs(5.0) },
        arrivals: Arrivals { process: Process::Curve, rho: 1.0 },
        curve,
        requests: rows.len(),
        faults: Faults::default(),
    }
}

fn hours(rows: &[Row], points: &[(f64, f64)]) {
    let elastic = scenario(vec![pool("l40s", (1, MOST), "1.00", Capacity::OnDemand)], rows, points);
    let mut table = Table::default();
    for seed in SEEDS {
        let load = requests(&elastic, rows, seed);
        table.note("easel", &simulate(&elastic, &load, &mut Easel::default()), "");
        let (kpa, at) = cheapest(|target| simulate(&elastic, &load, &mut *kpa(target)));
        table.note("knative, tuned", &kpa, &format!("{at:.2}"));
        let (hpa, at) = cheapest(|target| simulate(&elastic, &load, &mut *hpa(target)));
        table.note("hpa, tuned", &hpa, &format!("{at:.2}"));
        table.note("keda's defaults", &simulate(&elastic, &load, &mut *by_name("keda")), "");
        let (fixed, size) = fewest(&elastic, &load, "shortest-delay");
        table.note("static peak", &fixed, &size.to_string());
        let (fixed, size) = fewest(&elastic, &load, "easel");
        table.note("static peak, routed by easel", &fixed, &size.to_string());
    }
    print!("{}", table.render("GPU-hours", |outcome| outcome.gpu_hours));
}

/// Two spot pools at about a third of the price; each spot replica is reclaimed about twice a day.
fn money(rows: &[Row], points: &[(f64, f64)]) {
    let on_demand = || pool("l40s", (1, MOST), "1.00", Capacity::OnDemand);
    let spot = |name: &str, price: &str| pool(name, (0, MOST), price, Capacity::Spot);
    let rates = Rates { reclaim: 0.1, ..Rates::default() };
    let mut table = Table::default();
    for seed in SEEDS {
        let with = |pools: Vec<PoolSpec>| Scenario {
            faults: Faults { rates, seed, ..Faults::default() },
            ..scenario(pools, rows, points)
        };
        let mixed = with(vec![on_demand(), spot("l40s-spot-a", "0.35"), spot("l40s-spot-b", "0.38")]);
        let load = requests(&mixed, rows, seed);
        table.note("easel, on demand and spot", &simulate(&mixed, &load, &mut Easel::default()), "");
        let only = with(vec![on_demand()]);
        table.note("easel, on demand only", &simulate(&only, &load, &mut Easel::default()), "");
        let half = with(vec![on_demand(), spot("l40s-spot-a", "0.35")]);
        table.note("easel, half of it spot", &simulate(&half, &load, &mut Easel::default()), "");
    }
    print!("{}", table.render("dollars per image in time", |outcome| outcome.usd_per_image_in_slo));
}

fn by_name(name: &str) -> Box<dyn Policy> {
    policies::by_name(name, 0).unwrap_or_else(|| Box::new(Easel::with(Settings::default())))
}

fn kpa(target: f64) -> Box<dyn Policy> {
    scaled("knative", Box::new(scalers::Kpa::at(target)))
}

fn hpa(target: f64) -> Box<dyn Policy> {
    scaled("hpa", Box::new(scalers::Hpa::at(target)))
}

/// The cheapest of the settings that reach the aim, or the one that comes nearest to it.
fn cheapest(run: impl Fn(f64) -> Outcome) -> (Outcome, f64) {
    let mut all: Vec<(Outcome, f64)> = (1..=40).map(|at| f64::from(at) * 0.025).map(|at| (run(at), at)).collect();
    all.sort_by(|a, b| {
        let key = |outcome: &Outcome| if outcome.slo_attainment >= AIM { outcome.gpu_hours } else { f64::MAX };
        key(&a.0).total_cmp(&key(&b.0)).then(b.0.slo_attainment.total_cmp(&a.0.slo_attainment))
    });
    all.swap_remove(0)
}

/// The smallest fixed fleet that reaches the aim.
fn fewest(scenario: &Scenario, load: &Load, policy: &str) -> (Outcome, u32) {
    let run = |size: u32| {
        let pools = scenario.pools.iter().map(|pool| PoolSpec { min: size, max: size, ..pool.clone() }).collect();
        simulate(&Scenario { pools, ..scenario.clone() }, load, &mut *by_name(policy))
    };
    let (mut low, mut high) = (1, MOST);
    while low < high {
        let middle = u32::midpoint(low, high);
        if run(middle).slo_attainment >= AIM { high = middle } else { low = middle + 1 }
    }
    (run(low), low)
}

#[derive(Debug, Default)]
struct Table {
    names: Vec<&'static str>,
    runs: Vec<Vec<(Outcome, String)>>,
}

impl Table {
    fn note(&mut self, name: &'static str, outcome: &Outcome, setting: &str) {
        let at = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.runs.push(Vec::new());
            self.names.len() - 1
        });
        self.runs[at].push((outcome.clone(), setting.to_owned()));
    }

    /// Mean and 95 % interval over the seeds; the share is of the first row.
    fn render(&self, measure: &str, value: fn(&Outcome) -> f64) -> String {
        let mut text =
            format!("| policy | settings | attainment | {measure} | easel saves | GPU-hours | lost | retried |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        let values = |at: usize| self.runs[at].iter().map(|(outcome, _)| value(outcome)).collect::<Vec<_>>();
        let first = mean(&values(0));
        for (at, name) in self.names.iter().enumerate() {
            let attainment: Vec<f64> = self.runs[at].iter().map(|run| run.0.slo_attainment * 100.0).collect();
            let hours: Vec<f64> = self.runs[at].iter().map(|run| run.0.gpu_hours).collect();
            let settings: Vec<&str> = self.runs[at].iter().map(|run| run.1.as_str()).collect();
            let lost: u64 = self.runs[at].iter().map(|run| run.0.lost).sum();
            let retried: u64 = self.runs[at].iter().map(|run| run.0.retried).sum();
            let saved = 100.0 * (1.0 - first / mean(&values(at)));
            let settings = settings.join(" ");
            let _ = writeln!(
                text,
                "| {name} | {settings} | {} % | {} | {saved:.1} % | {} | {lost} | {retried} |",
                interval(&attainment, 2),
                interval(&values(at), 4),
                interval(&hours, 1),
            );
        }
        text
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Student's t for five seeds.
fn interval(values: &[f64], digits: usize) -> String {
    let mean = mean(values);
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64;
    let half = 2.776 * (variance / values.len().max(1) as f64).sqrt();
    format!("{mean:.digits$} ± {half:.digits$}")
}
