//! How much of the picture is left at each trained time step, from how the noise was added.
//! Numbers only, in the precision of diffusers 0.42.1, `schedulers/scheduling_ddim.py`.

use std::f64::consts::FRAC_PI_2;

use serde::Deserialize;

/// The largest beta of the cosine schedule.
const MAX_BETA: f64 = 0.999;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    Linear,
    ScaledLinear,
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// How the betas of a schedule come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Betas {
    pub schedule: BetaSchedule,
    pub start: f64,
    pub end: f64,
    pub count: usize,
    pub zero_snr: bool,
}

impl Betas {
    /// The running product of 1 − beta. Sums and products in f64, stored in f32, as libtorch does on a CPU.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let betas = self.betas();
        let betas = if self.zero_snr { rescale_zero_terminal_snr(&betas) } else { betas };
        cumprod(betas.iter().map(|beta| 1.0 - beta))
    }

    fn betas(&self) -> Vec<f32> {
        match self.schedule {
            BetaSchedule::Linear => linspace(self.start, self.end, self.count),
            BetaSchedule::ScaledLinear => {
                linspace(self.start.sqrt(), self.end.sqrt(), self.count).iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredcosCapV2 => betas_for_alpha_bar(self.count),
        }
    }
}

/// `betas_for_alpha_bar` with its default `cosine`. The fractions are of floats: integers would make every beta 0.
fn betas_for_alpha_bar(count: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    let fraction = |index: usize| index as f64 / count as f64;
    let beta = |index| 1.0 - alpha_bar(fraction(index + 1)) / alpha_bar(fraction(index));
    (0..count).map(|index| beta(index).min(MAX_BETA) as f32).collect()
}

/// `rescale_zero_terminal_snr`: shifts and scales the roots of `alphas_cumprod` so that the last is 0 and the first stays.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let bar_sqrt: Vec<f32> = cumprod(betas.iter().map(|beta| 1.0 - beta)).iter().map(|bar| bar.sqrt()).collect();
    let (Some(&first), Some(&last)) = (bar_sqrt.first(), bar_sqrt.last()) else {
        return Vec::new();
    };
    let bar: Vec<f32> = bar_sqrt.iter().map(|root| ((root - last) * (first / (first - last))).powi(2)).collect();
    let first_beta = 1.0 - bar[0];
    std::iter::once(first_beta).chain(bar.windows(2).map(|pair| 1.0 - pair[1] / pair[0])).collect()
}

fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0;
    let mut next = |value: f32| {
        product *= f64::from(value);
        product as f32
    };
    values.map(&mut next).collect()
}

/// torch.linspace in f32: from both ends, so that both are exact.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count.max(2) - 1) as f32;
    let value = |index: usize| {
        if index < count / 2 { start + step * index as f32 } else { end - step * (count - index - 1) as f32 }
    };
    (0..count).map(value).collect()
}
