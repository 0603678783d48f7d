//! The mean of a few runs, and how far the true one may lie from it. Knows numbers only.

/// Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; the normal distribution's beyond.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
const NORMAL: f64 = 1.960;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) mean: f64,
    /// Half of the 95 % interval; absent for one run, which says nothing of it.
    pub(crate) interval95: Option<f64>,
}

impl Sample {
    /// Nothing of nothing.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let freedom = values.len().checked_sub(1)?;
        let point = freedom.checked_sub(1).map(|at| T.get(at).copied().unwrap_or(NORMAL));
        let interval95 = point.map(|t| {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom as f64;
            t * (variance / count).sqrt()
        });
        Some(Self { mean, interval95 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_runs_have_the_interval_of_the_textbook() {
        let sample = Sample::of([1.0, 2.0, 3.0, 4.0, 5.0].into_iter()).unwrap();
        assert!((sample.mean - 3.0).abs() < 1e-12);
        // 2.776 × sqrt(2.5 / 5)
        assert!((sample.interval95.unwrap() - 1.963).abs() < 1e-3);
    }

    #[test]
    fn one_run_has_no_interval_and_none_no_mean() {
        assert_eq!(Sample::of([2.0].into_iter()), Some(Sample { mean: 2.0, interval95: None }));
        assert_eq!(Sample::of(std::iter::empty()), None);
    }
}
