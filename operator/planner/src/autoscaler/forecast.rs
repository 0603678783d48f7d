//! What this time of day will bring, from the days that were seen: seasons by MSTL, their trend by exponential smoothing,
//! with an interval. Knows buckets of five minutes of two days; silent until it has seen two of them.

use std::collections::VecDeque;

use augurs_ets::AutoETS;
use augurs_mstl::MSTLModel;

use crate::time::{Moment, Span};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds of work a second.
    pub rate: f64,
    /// Of an interval that holds it 80 times in 100.
    pub upper: f64,
}

/// Work by five minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seasons {
    sums: VecDeque<f64>,
    first: u64,
    /// Computed once a bucket: what the next ones will bring.
    ahead: Vec<Forecast>,
    computed: Option<u64>,
}

const BUCKET: f64 = 300.0;
/// Of a day.
const SEASON: usize = 288;
/// MSTL wants two whole seasons.
const SEASONS: usize = 2;
/// How far ahead is asked at most: a start and a load, generously.
const AHEAD: usize = 6;
const LEVEL: f64 = 0.8;

impl Seasons {
    pub(super) fn arrived(&mut self, work: f64, now: Moment) {
        let bucket = (now.secs() / BUCKET) as u64;
        let most = SEASON * SEASONS + 1;
        if self.sums.is_empty() || bucket >= self.first + (self.sums.len() + most) as u64 {
            self.sums.clear();
            self.first = bucket;
        }
        while self.first + self.sums.len() as u64 <= bucket {
            self.sums.push_back(0.0);
        }
        while self.sums.len() > most {
            self.sums.pop_front();
            self.first += 1;
        }
        if let Some(sum) = bucket.checked_sub(self.first).and_then(|at| self.sums.get_mut(at as usize)) {
            *sum += work;
        }
    }

    /// The most within the time ahead; `None` while there is no season.
    pub(super) fn forecast(&mut self, now: Moment, ahead: Span) -> Option<Forecast> {
        let bucket = (now.secs() / BUCKET) as u64;
        if self.computed != Some(bucket) {
            self.computed = Some(bucket);
            self.ahead = self.compute(bucket).unwrap_or_default();
        }
        let until = ((now + ahead).secs() / BUCKET) as u64;
        let buckets = usize::try_from(until.saturating_sub(bucket)).unwrap_or(0) + 1;
        self.ahead.iter().take(buckets).copied().max_by(|a, b| a.rate.total_cmp(&b.rate))
    }

    /// From the whole buckets before this one.
    fn compute(&self, bucket: u64) -> Option<Vec<Forecast>> {
        let whole = usize::try_from(bucket.checked_sub(self.first)?).ok()?;
        let from = whole.checked_sub(SEASON * SEASONS)?;
        // A bucket in which nothing came was not noted.
        let series: Vec<f64> = (from..whole).map(|at| self.sums.get(at).copied().unwrap_or(0.0) / BUCKET).collect();
        let trend = AutoETS::new(1, "AAN").ok()?.into_trend_model();
        let fit = augurs_core::Fit::fit(&MSTLModel::new(vec![SEASON], trend), &series).ok()?;
        let forecast = augurs_core::Predict::predict(&fit, AHEAD, LEVEL).ok()?;
        let upper = forecast.intervals.map(|intervals| intervals.upper).unwrap_or_default();
        let one = |(at, rate): (usize, &f64)| {
            let rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
            Forecast { rate, upper: upper.get(at).copied().unwrap_or(rate).max(rate) }
        };
        Some(forecast.point.iter().enumerate().map(one).collect())
    }
}
