//! A trace that nobody recorded, in the shape that is published of one: `GenTD26`, "Understanding Diffusion Model Serving in
//! Production", `SoCC` '25. Owns that shape as numbers; copies no row of the trace.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::simulate::Row;
use crate::time::Moment;

/// So many models have so much of all requests: the top 1, 5, 10, 20 and 87 take 31, 70, 87, 94 and 100 %. How much the first of
/// a group is above its average is ours, chosen so that popularity falls all the way.
const GROUPS: [(usize, f64, f64); 5] =
    [(1, 0.31, 0.0), (4, 0.39, 0.33), (5, 0.17, 0.4), (10, 0.07, 0.5), (67, 0.06, 0.9)];
const IMAGES: [(u32, f64); 4] = [(1, 0.58), (2, 0.08), (4, 0.19), (8, 0.15)];
/// 30 in 91 % of requests; the others are the rest's order of magnitude.
const STEPS: [(u32, f64); 4] = [(30, 0.91), (40, 0.05), (25, 0.02), (20, 0.02)];
const LORAS: [(u32, f64); 3] = [(0, 0.83), (1, 0.16), (2, 0.01)];
/// The next request of a user is for the model of the last one in 72 % of cases; 14 % of those would be so by chance.
const KEEP_MODEL: f64 = 0.67;
/// The next request of the fleet is of the same user: with this the next has the same model in 25 % of cases.
const SAME_USER: f64 = 0.18;
/// People at work at one time, and requests of one.
const SESSIONS: usize = 24;
const SESSION_LENGTH: f64 = 5.75;
const DAY: f64 = 86_400.0;
/// exp(κ cos) over a day has a peak of 3.2 times its mean.
const PEAK: f64 = 1.958;
const MEAN_OF_CURVE: f64 = 2.214;

#[derive(Clone, Copy, Debug)]
struct Session {
    user: u32,
    model: usize,
}

/// Requests of people in sessions, at this rate on average, over days whose peak is 3.2 times the mean.
pub fn generate(requests: u32, per_second: f64, seed: u64) -> Vec<Row> {
    // Two streams, so that the rate changes when requests come and not what they are.
    let mut clock = Clock { seconds: 0.0, per_second, random: Pcg64Mcg::seed_from_u64(seed ^ 0x5eed) };
    let mut people = People::new(seed);
    (0..requests)
        .map(|_| {
            let Session { user, model } = people.next();
            Row {
                arrival: clock.next(),
                model: format!("model-{model:02}"),
                user: format!("user-{user:05}"),
                loras: people.one_of(&LORAS),
                images: people.one_of(&IMAGES),
                steps: people.one_of(&STEPS),
            }
        })
        .collect()
}

struct Clock {
    seconds: f64,
    per_second: f64,
    random: Pcg64Mcg,
}

impl Clock {
    /// A Poisson process of a changing rate, by thinning one of the rate of the peak. It begins at the least of the day.
    fn next(&mut self) -> Moment {
        let peak = PEAK.exp();
        loop {
            self.seconds -= (1.0 - self.random.random::<f64>()).ln() / (self.per_second * peak / MEAN_OF_CURVE);
            let curve = (-PEAK * (self.seconds / DAY * std::f64::consts::TAU).cos()).exp();
            if self.random.random::<f64>() * peak < curve {
                return Moment::from_secs(self.seconds);
            }
        }
    }
}

struct People {
    random: Pcg64Mcg,
    popularity: Vec<f64>,
    sessions: Vec<Session>,
    last: usize,
    users: u32,
}

impl People {
    fn new(seed: u64) -> Self {
        let mut people = Self {
            random: Pcg64Mcg::seed_from_u64(seed),
            popularity: popularity(),
            sessions: Vec::new(),
            last: 0,
            users: 0,
        };
        people.sessions = (0..SESSIONS).map(|_| people.arrive()).collect();
        people
    }

    fn arrive(&mut self) -> Session {
        self.users += 1;
        Session { user: self.users, model: self.model() }
    }

    fn next(&mut self) -> Session {
        if self.random.random::<f64>() < 1.0 / SESSION_LENGTH {
            let leaves = self.random.random_range(0..SESSIONS);
            self.sessions[leaves] = self.arrive();
        }
        if self.random.random::<f64>() >= SAME_USER {
            self.last = self.random.random_range(0..SESSIONS);
        }
        let shown = self.sessions[self.last];
        if self.random.random::<f64>() >= KEEP_MODEL {
            self.sessions[self.last].model = self.model();
        }
        shown
    }

    fn model(&mut self) -> usize {
        let mut lot = self.random.random::<f64>();
        let found = self.popularity.iter().position(|share| {
            lot -= share;
            lot < 0.0
        });
        found.unwrap_or(0)
    }

    fn one_of(&mut self, choices: &[(u32, f64)]) -> u32 {
        let mut lot = self.random.random::<f64>();
        let found = choices.iter().find(|(_, share)| {
            lot -= share;
            lot < 0.0
        });
        found.map_or(choices[0].0, |(value, _)| *value)
    }
}

/// The share of each model, the most popular first; they add up to 1.
fn popularity() -> Vec<f64> {
    let group = |(count, share, tilt): (usize, f64, f64)| {
        let average = share / count as f64;
        (0..count).map(move |at| {
            let place = if count > 1 { at as f64 / (count - 1) as f64 } else { 0.5 };
            average * (1.0 + tilt * (1.0 - 2.0 * place))
        })
    };
    GROUPS.into_iter().flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const REQUESTS: u32 = 20_000;

    fn share(rows: &[Row], holds: impl Fn(&Row) -> bool) -> f64 {
        rows.iter().filter(|row| holds(row)).count() as f64 / rows.len() as f64
    }

    fn near(found: f64, published: f64, within: f64) {
        assert!((found - published).abs() <= within, "{found:.3} is not {published} ± {within}");
    }

    #[test]
    fn popularity_has_the_published_shares_and_falls_all_the_way() {
        let shares = popularity();
        assert_eq!(shares.len(), 87);
        for (top, published) in [(1, 0.31), (5, 0.70), (10, 0.87), (20, 0.94), (87, 1.0)] {
            near(shares[..top].iter().sum(), published, 1e-9);
        }
        assert!(shares.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] > 0.0));
    }

    #[test]
    fn a_generated_trace_asks_for_what_the_published_one_asks_for() {
        let rows = generate(REQUESTS, 0.0115, 1);
        for (images, published) in IMAGES {
            near(share(&rows, |row| row.images == images), published, 0.015);
        }
        near(share(&rows, |row| row.steps == 30), 0.91, 0.01);
        near(share(&rows, |row| row.loras == 0), 0.83, 0.01);
        near(share(&rows, |row| row.model == "model-00"), 0.31, 0.03);
    }

    #[test]
    fn people_work_in_sessions() {
        let rows = generate(REQUESTS, 0.0115, 1);
        let same = rows.windows(2).filter(|pair| pair[0].model == pair[1].model).count();
        near(same as f64 / rows.len() as f64, 0.25, 0.03);
        let (mut last, mut kept, mut all) = (BTreeMap::new(), 0, 0);
        for row in &rows {
            if let Some(model) = last.insert(row.user.as_str(), row.model.as_str()) {
                all += 1;
                kept += u32::from(model == row.model);
            }
        }
        near(f64::from(kept) / f64::from(all), 0.72, 0.03);
    }

    #[test]
    fn the_busiest_hour_of_a_day_has_three_times_the_mean() {
        let rows = generate(REQUESTS, 0.2, 1);
        let day: Vec<&Row> = rows.iter().filter(|row| row.arrival.secs() < DAY).collect();
        near(day.len() as f64 / DAY, 0.2, 0.01);
        let mut hours: BTreeMap<u32, u32> = BTreeMap::new();
        for row in day {
            *hours.entry((row.arrival.secs() / 3600.0) as u32).or_default() += 1;
        }
        let busiest = f64::from(*hours.values().max().unwrap()) / 3600.0 / 0.2;
        near(busiest, 3.2, 0.3);
    }

    #[test]
    fn the_rate_changes_when_requests_come_and_not_what_they_are() {
        let (slow, fast) = (generate(100, 0.1, 3), generate(100, 10.0, 3));
        assert!(
            slow.iter().zip(&fast).all(|(a, b)| a.model == b.model && a.images == b.images && a.arrival > b.arrival)
        );
        assert_ne!(generate(100, 0.1, 4), slow);
    }
}
