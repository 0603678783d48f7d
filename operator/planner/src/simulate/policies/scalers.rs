//! How others scale: Knative's KPA, Kubernetes' HPA on requests a replica, and KEDA on top of it, with their published defaults.
//! Each looks at counts of requests and replicas; none knows what a request costs.

use std::collections::VecDeque;

use crate::simulate::policies::immediate::{Scaler, Seen};
use crate::time::{Moment, Span};

/// Knative: an average of requests over a minute, and over six seconds in a panic.
#[derive(Clone, Debug, PartialEq)]
pub struct Kpa {
    /// Requests a replica; what is drawn one at a time has a concurrency of 1.
    pub concurrency: f64,
    pub utilisation: f64,
    pub stable: Span,
    pub panic: Span,
    pub panic_threshold: f64,
    /// At most so many times fewer at once.
    pub down_rate: f64,
    pub grace: Span,
    samples: VecDeque<(Moment, usize)>,
    panics: Option<(Moment, usize)>,
    quiet: Option<Moment>,
}

impl Default for Kpa {
    fn default() -> Self {
        Self {
            concurrency: 1.0,
            utilisation: 0.7,
            stable: Span::from_secs(60.0),
            panic: Span::from_secs(6.0),
            panic_threshold: 2.0,
            down_rate: 2.0,
            grace: Span::from_secs(30.0),
            samples: VecDeque::new(),
            panics: None,
            quiet: None,
        }
    }
}

impl Kpa {
    /// The defaults, but for how busy replicas shall be.
    pub fn at(utilisation: f64) -> Self {
        Self { utilisation, ..Self::default() }
    }
}

impl Scaler for Kpa {
    fn tick(&self) -> Span {
        Span::from_secs(2.0)
    }

    fn desired(&mut self, now: Moment, seen: Seen) -> usize {
        self.samples.push_back((now, seen.concurrency));
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > self.stable) {
            self.samples.pop_front();
        }
        let target = self.concurrency * self.utilisation;
        let wanted = |window: Span| (average(&self.samples, now, window) / target).ceil() as usize;
        let (stable, panic) = (wanted(self.stable), wanted(self.panic));
        let least = (seen.ready as f64 / self.down_rate).floor() as usize;
        if panic as f64 >= self.panic_threshold * seen.ready.max(1) as f64 {
            let most = self.panics.map_or(0, |(_, most)| most);
            self.panics = Some((now, most));
        }
        if let Some((since, most)) = self.panics {
            if now.since(since) <= self.stable {
                let most = most.max(panic).max(stable).max(seen.ordered);
                self.panics = Some((since, most));
                return most;
            }
            self.panics = None;
        }
        if stable > 0 || seen.concurrency > 0 {
            self.quiet = None;
            return stable.max(least).max(1);
        }
        let quiet = *self.quiet.get_or_insert(now);
        if now.since(quiet) >= self.grace { 0 } else { least.max(1) }
    }
}

fn average(samples: &VecDeque<(Moment, usize)>, now: Moment, window: Span) -> f64 {
    let within = samples.iter().filter(|(at, _)| now.since(*at) <= window);
    let (sum, count) = within.fold((0, 0_u32), |(sum, count), (_, sample)| (sum + sample, count + 1));
    sum as f64 / f64::from(count.max(1))
}

/// Kubernetes: the ratio of what is there to what shall be there, every 15 seconds; down by the most of five minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    /// Requests a replica.
    pub target: f64,
    pub tolerance: f64,
    pub stabilisation: Span,
    wanted: VecDeque<(Moment, usize)>,
}

impl Default for Hpa {
    fn default() -> Self {
        Self { target: 0.7, tolerance: 0.1, stabilisation: Span::from_secs(300.0), wanted: VecDeque::new() }
    }
}

impl Hpa {
    /// The defaults, but for the requests a replica.
    pub fn at(target: f64) -> Self {
        Self { target, ..Self::default() }
    }
}

impl Scaler for Hpa {
    fn tick(&self) -> Span {
        Span::from_secs(15.0)
    }

    fn desired(&mut self, now: Moment, seen: Seen) -> usize {
        let ready = seen.ready.max(1);
        let ratio = seen.concurrency as f64 / ready as f64 / self.target;
        let wanted =
            if (ratio - 1.0).abs() <= self.tolerance { seen.ordered } else { (ratio * ready as f64).ceil() as usize };
        // Kubernetes never orders more than 4 or as many again within 15 seconds.
        let wanted = wanted.min(seen.ordered + seen.ordered.max(4)).max(1);
        self.wanted.push_back((now, wanted));
        while self.wanted.front().is_some_and(|(at, _)| now.since(*at) > self.stabilisation) {
            self.wanted.pop_front();
        }
        let most = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
        // Never up by the window, which only slows the way down.
        wanted.max(most.min(seen.ordered))
    }
}

/// KEDA: HPA while there is anything, 0 after a cooldown without, 1 as soon as it polls a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keda {
    pub hpa: Hpa,
    quiet: Option<Moment>,
}

impl Keda {
    const COOLDOWN: Span = Span::from_micros(300_000_000);

    pub fn new(hpa: Hpa) -> Self {
        Self { hpa, quiet: None }
    }
}

impl Scaler for Keda {
    /// It polls every 30 seconds while there is nothing; looking at HPA's pace is in its favour.
    fn tick(&self) -> Span {
        self.hpa.tick()
    }

    fn desired(&mut self, now: Moment, seen: Seen) -> usize {
        if seen.concurrency > 0 {
            self.quiet = None;
            return self.hpa.desired(now, seen);
        }
        let quiet = *self.quiet.get_or_insert(now);
        let wanted = self.hpa.desired(now, seen);
        if now.since(quiet) >= Self::COOLDOWN { 0 } else { wanted }
    }
}
