//! Outcomes as JSON for programs and as a table for people. Knows numbers and their names only.

use std::fmt::Write;

use easel_planner::simulate::{Bucket, Outcome, Scenario, policies};
use serde_json::{Value, json};

use super::Run;

/// Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom; beyond, the normal one is near enough.
const STUDENT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
const NORMAL: f64 = 1.960;

pub(super) fn policies() -> String {
    policies::ALL.iter().fold(String::new(), |mut text, (name, what)| {
        let _ = writeln!(text, "{name:<22}{what}");
        text
    })
}

/// One object for one run, an array for several.
pub(super) fn json(scenario: &Scenario, runs: &[Run]) -> String {
    let objects: Vec<Value> = runs.iter().map(|run| object(scenario, run)).collect();
    let value = match <[Value; 1]>::try_from(objects) {
        Ok([only]) => only,
        Err(several) => Value::Array(several),
    };
    format!("{value:#}\n")
}

fn object(scenario: &Scenario, Run { seed, outcome: o }: &Run) -> Value {
    let usd = |micros: u64| micros as f64 / 1e6;
    let bucket = |bucket: &Bucket| json!({"requests": bucket.requests, "slo_attainment": bucket.attainment()});
    let images = |bucket: &Bucket| json!({"images": bucket.images, "requests": bucket.requests, "slo_attainment": bucket.attainment()});
    let models = o.models.iter().map(|model| (model.model.clone(), bucket(&model.share)));
    json!({
        "policy": o.policy,
        "seed": seed,
        "rho": scenario.arrivals.rho,
        "requests": o.requests,
        "slo_attainment": o.slo_attainment,
        "weighted_attainment": o.weighted_attainment,
        "goodput_rps": o.goodput_rps,
        "mean_s": o.mean.secs(),
        "p50_s": o.p50.secs(),
        "p95_s": o.p95.secs(),
        "p99_s": o.p99.secs(),
        "switches": o.switches,
        "switch_share": o.switch_share,
        "fetches_ahead": o.fetches,
        "put_aside": o.put_aside,
        "gpu_busy_share": o.gpu_busy_share,
        "load_share": o.load_share,
        "gpu_hours": o.gpu_hours,
        "cost_usd": usd(o.cost.micros()),
        "drawing_usd": usd(o.drawing_cost.micros()),
        "loading_usd": usd(o.loading_cost.micros()),
        "idle_usd": usd(o.idle_cost.micros()),
        "images_in_slo": o.images_in_slo,
        "usd_per_image_in_slo": o.usd_per_image_in_slo,
        "rejected": o.rejected,
        "late": o.late,
        "lost": o.lost,
        "by_images": o.by_images.iter().map(images).collect::<Vec<_>>(),
        "models_of_100_requests": models.collect::<serde_json::Map<_, _>>(),
        "tail": bucket(&o.tail),
    })
}

/// One line a policy: the mean over the seeds, and half of its 95 % interval where there are several.
pub(super) fn table(scenario: &Scenario, runs: &[Run]) -> String {
    let mut text = String::new();
    let seeds =
        runs.iter().map(|run| run.seed).max().unwrap_or(0) - runs.iter().map(|run| run.seed).min().unwrap_or(0) + 1;
    let requests = runs.first().map_or(0, |run| run.outcome.requests);
    let replicas: u32 = scenario.pools.iter().map(|pool| pool.max).sum();
    let _ = writeln!(
        text,
        "{requests} requests on {replicas} replicas, {seeds} seed{}; a refused, late or lost request is a miss",
        if seeds == 1 { "" } else { "s" }
    );
    let _ = writeln!(
        text,
        "{:<22}{:>16}{:>10}{:>10}{:>8}{:>8}{:>8}{:>9}{:>8}{:>10}{:>12}",
        "policy",
        "in time %",
        "weighted",
        "worst",
        "p50 s",
        "p95 s",
        "p99 s",
        "switches",
        "busy %",
        "GPU-hours",
        "$ an image"
    );
    let mut names: Vec<&str> = runs.iter().map(|run| run.outcome.policy.as_str()).collect();
    names.dedup();
    for name in names {
        let of: Vec<&Outcome> = runs.iter().map(|run| &run.outcome).filter(|outcome| outcome.policy == name).collect();
        line(&mut text, name, &of);
    }
    text.push_str(
        "weighted: by the work of each request; worst: the model of at least 100 requests that fares worst\n",
    );
    text
}

fn line(text: &mut String, name: &str, of: &[&Outcome]) {
    let mean = |value: fn(&Outcome) -> f64| of.iter().map(|outcome| value(outcome)).sum::<f64>() / of.len() as f64;
    let attainment: Vec<f64> = of.iter().map(|outcome| 100.0 * outcome.slo_attainment).collect();
    let half = half_interval(&attainment).map_or(String::new(), |half| format!(" ± {half:.2}"));
    let in_time = format!("{:.2}{half}", mean(|outcome| 100.0 * outcome.slo_attainment));
    let _ = writeln!(
        text,
        "{name:<22}{in_time:>16}{:>10.1}{:>10.1}{:>8.1}{:>8.1}{:>8.1}{:>9.0}{:>8.1}{:>10.2}{:>12.5}",
        mean(|outcome| 100.0 * outcome.weighted_attainment),
        mean(|outcome| 100.0 * outcome.models.first().map_or(1.0, |model| model.share.attainment())),
        mean(|outcome| outcome.p50.secs()),
        mean(|outcome| outcome.p95.secs()),
        mean(|outcome| outcome.p99.secs()),
        mean(|outcome| outcome.switches as f64),
        mean(|outcome| 100.0 * outcome.gpu_busy_share),
        mean(|outcome| outcome.gpu_hours),
        mean(|outcome| outcome.usd_per_image_in_slo),
    );
}

/// Half of the 95 % interval of the mean; `None` for a single value.
fn half_interval(values: &[f64]) -> Option<f64> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    Some(STUDENT.get(n - 2).copied().unwrap_or(NORMAL) * (variance / n as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        assert_eq!(half_interval(&[1.0]), None);
        // Five values with a standard deviation of 1: 2.776 / √5.
        let values = [-1.0, 1.0, -1.0, 1.0, 0.0];
        assert!((half_interval(&values).unwrap() - 1.2414).abs() < 1e-3);
    }
}
