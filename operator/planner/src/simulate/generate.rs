//! Requests in the published shape of a production trace: people in sessions over models of very unequal popularity.
//! Source: the trace `GenTD26` ("Understanding Diffusion Model Serving in Production", `SoCC` 2025), by its published facts.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::simulate::Row;
use crate::time::Moment;

/// 87 models, of which the top 1, 5, 10 and 20 take 31, 70, 87 and 94 %: so many models share so much.
const POPULARITY: [(u32, f64); 5] = [(1, 0.31), (4, 0.39), (5, 0.17), (10, 0.07), (67, 0.06)];
/// Within one user the next request has the same model.
const SAME_MODEL: f64 = 0.72;
/// Sessions side by side. In the fleet the next request has the same model in a quarter of cases; popular models alone
/// give a sixth, and one session in five or so going on gives the rest.
const SESSIONS: usize = 6;
/// A session ends after a request; five or six requests on average.
const ENDS: f64 = 0.18;
const IMAGES: [(u32, f64); 4] = [(1, 0.58), (2, 0.08), (4, 0.19), (8, 0.15)];
const STEPS: [(u32, f64); 4] = [(30, 0.91), (40, 0.05), (25, 0.02), (20, 0.02)];
const LORAS: [(u32, f64); 3] = [(0, 0.83), (1, 0.16), (2, 0.01)];
/// Seconds between requests on average, where arrivals are the trace's own.
const GAP: f64 = 5.0;
/// The busiest moment of a day has 3.2 times the mean.
const PEAK: f64 = 3.2;
const DAY: f64 = 86_400.0;

#[derive(Clone, Debug)]
struct Session {
    user: u32,
    model: u32,
}

pub fn generate(requests: u32, seed: u64) -> Vec<Row> {
    let mut random = Pcg64Mcg::seed_from_u64(seed ^ 0x6561_7365_6c00);
    let (mut clock, mut users) = (0.0, 0);
    let mut sessions: Vec<Session> = (0..SESSIONS).map(|_| begin(&mut random, &mut users)).collect();
    let row = |_| {
        clock -= (1.0 - random.random::<f64>()).ln() * GAP / intensity(clock);
        let at = random.random_range(0..sessions.len());
        let session = sessions[at].clone();
        if random.random_bool(ENDS) {
            sessions[at] = begin(&mut random, &mut users);
        } else if !random.random_bool(SAME_MODEL) {
            sessions[at].model = popular(&mut random);
        }
        Row {
            arrival: Moment::from_secs(clock),
            model: format!("model-{:02}", session.model),
            user: format!("user-{}", session.user),
            loras: pick(&mut random, &LORAS),
            images: pick(&mut random, &IMAGES),
            steps: pick(&mut random, &STEPS),
        }
    };
    (0..requests).map(row).collect()
}

fn begin(random: &mut Pcg64Mcg, users: &mut u32) -> Session {
    *users += 1;
    Session { user: *users, model: popular(random) }
}

/// Of the mean, over a day: a sharp peak on a low floor, whose average is 1.
fn intensity(clock: f64) -> f64 {
    let angle = std::f64::consts::TAU * clock / DAY;
    let bump = (0.5 - 0.5 * angle.cos()).powi(2);
    // The bump has mean 3/8 and peak 1.
    let height = (PEAK - 1.0) / (1.0 - 0.375);
    (1.0 + height * (bump - 0.375)).max(0.05)
}

fn popular(random: &mut Pcg64Mcg) -> u32 {
    let mut left = random.random::<f64>();
    let mut first = 0;
    for (models, share) in POPULARITY {
        if left < share {
            // Within a group the popularity falls off, too.
            let place = (left / share).powf(1.3) * f64::from(models);
            return first + (place as u32).min(models - 1);
        }
        left -= share;
        first += models;
    }
    first - 1
}

fn pick(random: &mut Pcg64Mcg, shares: &[(u32, f64)]) -> u32 {
    let mut left = random.random::<f64>();
    for (value, share) in shares {
        if left < *share {
            return *value;
        }
        left -= share;
    }
    shares[0].0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_shape_is_the_published_one() {
        let rows = generate(40_000, 1);
        let share = |count: usize| count as f64 / rows.len() as f64;
        let near =
            |what: &str, is: f64, published: f64| assert!((is - published).abs() < 0.03, "{what}: {is} {published}");
        let mut models: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *models.entry(&row.model).or_default() += 1;
        }
        let mut counts: Vec<usize> = models.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(counts.len(), 87);
        for (top, published) in [(1, 0.31), (5, 0.70), (10, 0.87), (20, 0.94)] {
            near("top models", share(counts[..top].iter().sum()), published);
        }
        near("one image", share(rows.iter().filter(|row| row.images == 1).count()), 0.58);
        near("no LoRA", share(rows.iter().filter(|row| row.loras == 0).count()), 0.83);
        near("30 steps", share(rows.iter().filter(|row| row.steps == 30).count()), 0.91);
        let same = rows.windows(2).filter(|pair| pair[0].model == pair[1].model).count();
        assert!((0.18..0.35).contains(&share(same)), "next has the same model: {}", share(same));
    }

    #[test]
    fn the_busiest_hour_has_about_three_times_the_mean() {
        let rows = generate(60_000, 2);
        let last = rows.last().unwrap().arrival.secs();
        let days = (last / DAY).floor();
        let mut hours: BTreeMap<u64, f64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.arrival.secs() < days * DAY) {
            *hours.entry((row.arrival.secs() % DAY / 3600.0) as u64).or_default() += 1.0;
        }
        let mean = hours.values().sum::<f64>() / 24.0;
        let peak = hours.values().copied().fold(0.0, f64::max) / mean;
        assert!((2.6..3.6).contains(&peak), "{peak}");
    }
}
