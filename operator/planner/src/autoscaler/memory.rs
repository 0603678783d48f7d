//! What the autoscaler must remember between two looks; bounded, and small enough to be checkpointed by the leader.
//! Two days of work in buckets of five minutes, ten minutes of it in buckets of ten seconds, and the needs of the last minutes.

use std::collections::VecDeque;

use crate::autoscaler::forecast::{Forecast, Seasons};
use crate::time::{Moment, Span};

#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Seconds of work that arrived, by ten seconds; the first is `first`.
    recent: VecDeque<f64>,
    first: u64,
    seasons: Seasons,
    /// β.
    headroom: f64,
    /// Needs that may still count, falling: the first is what is held.
    needs: VecDeque<(Moment, f64)>,
    panic_until: Moment,
    last: Option<Moment>,
    began: Option<Moment>,
}

const BUCKET: f64 = 10.0;
const BUCKETS: usize = 60;
/// Before anything is learned: a 95 % chance that a normal variable stays below.
const FIRST_HEADROOM: f64 = 1.645;
const MOST_HEADROOM: f64 = 6.0;
/// What one missed deadline adds. A correction shows after a start and a load, some 80 s, so steps must be small; on the daily
/// curve 0.1 cost 4 % more hours than 0.03 at the same attainment, and 0.01 no less.
const LEARN: f64 = 0.02;

impl Default for Memory {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            first: 0,
            seasons: Seasons::default(),
            headroom: FIRST_HEADROOM,
            needs: VecDeque::new(),
            panic_until: Moment::ORIGIN,
            last: None,
            began: None,
        }
    }
}

impl Memory {
    /// What is usual now.
    pub const STABLE: Span = Span::from_micros(300_000_000);
    pub const SHORTEST: Span = Span::from_micros(20_000_000);

    /// A request was asked for: its drawing, in seconds at speed 1.
    pub fn arrived(&mut self, work: f64, now: Moment) {
        self.began.get_or_insert(now);
        self.last = Some(now);
        let bucket = bucket(now);
        if self.recent.is_empty() || bucket >= self.first + (self.recent.len() + BUCKETS) as u64 {
            self.recent.clear();
            self.first = bucket;
        }
        while self.first + self.recent.len() as u64 <= bucket {
            self.recent.push_back(0.0);
        }
        while self.recent.len() > BUCKETS {
            self.recent.pop_front();
            self.first += 1;
        }
        if let Some(sum) = bucket.checked_sub(self.first).and_then(|at| self.recent.get_mut(at as usize)) {
            *sum += work;
        }
        self.seasons.arrived(work, now);
    }

    /// A request ended, or was refused: `misses` of them may be late or refused.
    pub fn ended(&mut self, in_time: bool, misses: f64) {
        let step = if in_time { -misses } else { 1.0 - misses };
        self.headroom = (self.headroom + LEARN * step).clamp(0.0, MOST_HEADROOM);
    }

    /// Seconds of work a second, over the window that ends now; over less where less is known.
    pub fn rate(&self, window: Span, now: Moment) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        let end = bucket(now) + 1;
        let buckets = (window.secs() / BUCKET).ceil().max(1.0) as u64;
        let from = end.saturating_sub(buckets);
        let sum: f64 = (from..end).filter_map(|at| self.recent.get(at.checked_sub(self.first)? as usize)).sum();
        // The last bucket is not over yet.
        let known = now.secs() - (from as f64 * BUCKET).max(began.secs());
        sum / known.max(BUCKET)
    }

    pub(super) fn forecast(&mut self, now: Moment, ahead: Span) -> Option<Forecast> {
        self.seasons.forecast(now, ahead)
    }

    pub fn headroom(&self) -> f64 {
        self.headroom
    }

    /// The most of the needs within the window, this one included.
    pub(super) fn hold(&mut self, need: f64, window: Span, now: Moment) -> f64 {
        while self.needs.back().is_some_and(|(_, less)| *less <= need) {
            self.needs.pop_back();
        }
        self.needs.push_back((now, need));
        while self.needs.len() > 1 && now.since(self.needs[0].0) > window {
            self.needs.pop_front();
        }
        // Falling needs at one look each could be many only if looks were far more frequent than they are.
        while self.needs.len() > 1024 {
            self.needs.remove(1);
        }
        self.held()
    }

    pub(super) fn held(&self) -> f64 {
        self.needs.front().map_or(0.0, |(_, need)| *need)
    }

    pub(super) fn panic(&mut self, now: Moment, lasts: Span) {
        self.panic_until = now + lasts;
    }

    pub(super) fn panics(&self, now: Moment) -> bool {
        now < self.panic_until
    }

    /// Since anything was asked for.
    pub(super) fn quiet(&self, now: Moment) -> Span {
        self.last.map_or(Span::MAX, |last| now.since(last))
    }
}

fn bucket(now: Moment) -> u64 {
    (now.secs() / BUCKET) as u64
}
