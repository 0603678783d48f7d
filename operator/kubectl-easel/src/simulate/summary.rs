//! One policy over all of its seeds: means, intervals, and how far it is from the bound.

use super::flags::BOUND;
use super::report::Report;
use super::sample::Sample;

/// One policy over all of its seeds.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) policy: String,
    pub(crate) seeds: Vec<u64>,
    pub(crate) slo_attainment: Option<Sample>,
    pub(crate) weighted_attainment: Option<Sample>,
    pub(crate) worst_model: Option<Sample>,
    pub(crate) tail: Option<Sample>,
    pub(crate) p50_s: Option<Sample>,
    pub(crate) p95_s: Option<Sample>,
    pub(crate) switch_share: Option<Sample>,
    pub(crate) gpu_busy_share: Option<Sample>,
    pub(crate) cost_usd: Option<Sample>,
    pub(crate) usd_per_image_in_slo: Option<Sample>,
    pub(crate) rejected: Option<Sample>,
    pub(crate) late: Option<Sample>,
    pub(crate) lost: Option<Sample>,
    /// The bound's attainment less this one's, where the bound was computed.
    pub(crate) to_the_bound: Option<Sample>,
    /// Of what lies between cheapest feasible and the bound, the share that this policy won; both taken as means.
    pub(crate) gap_closed: Option<f64>,
}

impl Summary {
    /// Policies in the order of their first run.
    pub(crate) fn of(runs: &[Report]) -> Vec<Self> {
        let mut names: Vec<&str> = Vec::new();
        for run in runs {
            if !names.contains(&run.policy.as_str()) {
                names.push(&run.policy);
            }
        }
        names.iter().map(|name| Self::one(runs, name)).collect()
    }

    fn one(all: &[Report], name: &str) -> Self {
        let runs: Vec<&Report> = all.iter().filter(|run| run.policy == name).collect();
        let sample = |value: fn(&Report) -> Option<f64>| Sample::of(runs.iter().filter_map(|run| value(run)));
        let bound = |seed: u64| all.iter().find(|run| run.policy == BOUND && run.seed == seed);
        let away = |run: &&Report| Some(bound(run.seed)?.slo_attainment - run.slo_attainment);
        Self {
            policy: name.into(),
            seeds: runs.iter().map(|run| run.seed).collect(),
            slo_attainment: sample(|run| Some(run.slo_attainment)),
            weighted_attainment: sample(|run| Some(run.weighted_attainment)),
            worst_model: sample(|run| Some(run.worst_model.as_ref()?.share.slo_attainment)),
            tail: sample(|run| Some(run.tail?.slo_attainment)),
            p50_s: sample(|run| run.drawn.p50_s),
            p95_s: sample(|run| run.drawn.p95_s),
            switch_share: sample(|run| run.drawn.switch_share),
            gpu_busy_share: sample(|run| run.drawn.gpu_busy_share),
            cost_usd: sample(|run| run.drawn.cost_usd),
            usd_per_image_in_slo: sample(|run| run.drawn.usd_per_image_in_slo),
            rejected: sample(|run| Some(run.drawn.rejected? as f64)),
            late: sample(|run| Some(run.drawn.late? as f64)),
            lost: sample(|run| Some(run.drawn.lost? as f64)),
            to_the_bound: Sample::of(runs.iter().filter(|_| name != BOUND).filter_map(away)),
            gap_closed: gap_closed(all, name),
        }
    }
}

fn gap_closed(all: &[Report], name: &str) -> Option<f64> {
    let mean = |name: &str| {
        Sample::of(all.iter().filter(|run| run.policy == name).map(|run| run.slo_attainment)).map(|sample| sample.mean)
    };
    let (floor, bound) = (mean("cheapest-feasible")?, mean(BOUND)?);
    let apart = ![BOUND, "cheapest-feasible"].contains(&name) && bound > floor;
    apart.then(|| Some((mean(name)? - floor) / (bound - floor))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(policy: &str, seed: u64, slo_attainment: f64) -> Report {
        Report { policy: policy.into(), seed, slo_attainment, ..Report::default() }
    }

    #[test]
    fn the_gap_is_what_lies_between_cheapest_feasible_and_the_bound() {
        let runs = [
            run("easel", 1, 0.94),
            run("cheapest-feasible", 1, 0.86),
            run(BOUND, 1, 0.98),
            run("easel", 2, 0.96),
            run("cheapest-feasible", 2, 0.90),
            run(BOUND, 2, 1.0),
        ];
        let summary = Summary::of(&runs);
        assert_eq!(
            summary.iter().map(|row| row.policy.as_str()).collect::<Vec<_>>(),
            ["easel", "cheapest-feasible", BOUND]
        );
        assert_eq!(summary[0].seeds, [1, 2]);
        assert!((summary[0].slo_attainment.unwrap().mean - 0.95).abs() < 1e-9);
        assert!((summary[0].to_the_bound.unwrap().mean - 0.04).abs() < 1e-9);
        assert!((summary[0].gap_closed.unwrap() - 0.07 / 0.11).abs() < 1e-9);
        assert_eq!((summary[1].gap_closed, summary[2].gap_closed, summary[2].to_the_bound), (None, None, None));
    }
}
