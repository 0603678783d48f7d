//! `UniPC`: a predictor along the last pictures that the model meant, and a corrector of the step before once its end has
//! been seen. Transcribed from diffusers 0.42.1, `schedulers/scheduling_unipc_multistep.py`.

use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved};
use super::level::Level;
use super::schedule::{FinalSigma, NoiseSchedule, Prediction, SolverType};
use super::sigmas::MultistepLevels;

#[derive(Clone, Debug, PartialEq)]
pub struct UniPc {
    levels: MultistepLevels,
    prediction: Prediction,
    order: usize,
    /// `bh1`: B(h) is h, not e^h − 1.
    first_kind: bool,
    lower_order_final: bool,
    ends_clear: bool,
    disable_corrector: Vec<usize>,
}

/// What predictor and corrector of one step share.
struct Terms {
    /// The latents at the step's end along its newest output alone.
    straight: Tensor,
    /// `alpha_t` × B(h).
    scale: f32,
    /// `D1s`: how much each older output differs, by how far back it is.
    slopes: Vec<Tensor>,
    /// `rks`: how far back each is, in units of the step; the last is the step's end.
    ratios: Vec<f32>,
    b: Vec<f32>,
}

impl UniPc {
    pub fn new(schedule: &NoiseSchedule, count: u32) -> Result<Self, SamplerError> {
        let solver = &schedule.solver;
        Ok(Self {
            levels: MultistepLevels::new(schedule, count, solver.karras, f64::round_ties_even)?,
            prediction: schedule.prediction,
            order: solver.order,
            first_kind: solver.kind == SolverType::Bh1,
            lower_order_final: solver.lower_order_final,
            ends_clear: solver.final_sigma == FinalSigma::Zero,
            disable_corrector: solver.disable_corrector.clone(),
        })
    }

    pub fn steps(&self) -> usize {
        self.levels.timesteps.len()
    }

    pub fn timestep(&self, step: usize) -> f32 {
        self.levels.timesteps[step]
    }

    pub fn sigmas(&self) -> &[f32] {
        &self.levels.sigmas
    }

    /// `picture` as noisy as step `step` finds it.
    pub fn add_noise(&self, picture: &Tensor, noise: &Tensor, step: usize) -> Tensor {
        let Level { alpha, sigma, lambda: _ } = Level::of(self.levels.sigmas[step]);
        picture * f64::from(alpha) + noise * f64::from(sigma)
    }

    /// The picture without noise that the output of step `step` means.
    pub fn picture(&self, output: &Tensor, step: usize, latents: &Tensor) -> Tensor {
        let here = Level::of(self.levels.sigmas[step]);
        self.prediction.picture(output, latents, here.alpha, here.sigma)
    }

    pub fn step(&self, output: &Tensor, step: usize, latents: &Tensor, history: &History) -> Moved {
        let picture = self.picture(output, step, latents);
        let corrected = match &history.before {
            Some(before) if !self.disable_corrector.contains(&(step - 1)) => {
                let order = self.order_at(step - 1).min(history.outputs.len());
                self.correct(step - 1, order, before, &history.outputs, &picture)
            }
            _ => latents.shallow_clone(),
        };
        let outputs = history.with_output(picture, self.order);
        let order = self.order_at(step).min(outputs.len());
        let moved = self.predict(step, order, &corrected, &outputs);
        Moved { latents: moved, history: History { outputs, before: Some(corrected), noise: history.noise } }
    }

    /// Once there are as many outputs.
    fn order_at(&self, step: usize) -> usize {
        match self.steps() - step {
            // The level behind the end is infinitely far, and no output can be weighed by its distance.
            1 if self.ends_clear => 1,
            left if self.lower_order_final => left.min(self.order),
            _ => self.order,
        }
    }

    /// `multistep_uni_p_bh_update`.
    fn predict(&self, step: usize, order: usize, latents: &Tensor, outputs: &[Tensor]) -> Tensor {
        if self.levels.sigmas[step] <= self.levels.sigmas[step + 1] {
            return latents.shallow_clone(); // `sigma_min` after Karras' last level, which is the same
        }
        let terms = self.terms(step, order, latents, outputs);
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(&terms.ratios[..order - 1], &terms.b[..order - 1]),
        };
        let slopes = terms.slopes.iter().zip(weights).map(|(slope, weight)| slope * weight);
        slopes.fold(terms.straight, |moved, slope| moved - slope * f64::from(terms.scale))
    }

    /// `multistep_uni_c_bh_update`: the step that began at `before`, now that the model has said what `picture` its end
    /// means.
    fn correct(&self, step: usize, order: usize, before: &Tensor, outputs: &[Tensor], picture: &Tensor) -> Tensor {
        let mut terms = self.terms(step, order, before, outputs);
        let weights = if order == 1 { vec![0.5] } else { solve(&terms.ratios, &terms.b) };
        terms.slopes.push(picture - &outputs[outputs.len() - 1]);
        let slopes = terms.slopes.iter().zip(weights).map(|(slope, weight)| slope * weight);
        slopes.fold(terms.straight, |moved, slope| moved - slope * f64::from(terms.scale))
    }

    fn terms(&self, step: usize, order: usize, latents: &Tensor, outputs: &[Tensor]) -> Terms {
        let level = |back: usize| Level::of(self.levels.sigmas[step - back]);
        let (from, to) = (level(0), Level::of(self.levels.sigmas[step + 1]));
        let h = to.lambda - from.lambda;
        let newest = &outputs[outputs.len() - 1];
        let ratio = |back: usize| (level(back).lambda - from.lambda) / h;
        let slope = |back: usize| (&outputs[outputs.len() - 1 - back] - newest) / f64::from(ratio(back));
        let rise = (-h).exp_m1();
        let b_h = if self.first_kind { -h } else { rise };
        let straight = latents * f64::from(to.sigma / from.sigma) - newest * f64::from(to.alpha * rise);
        Terms {
            straight,
            scale: to.alpha * b_h,
            slopes: (1..order).map(slope).collect(),
            ratios: (1..order).map(ratio).chain([1.0]).collect(),
            b: right_side(-h, b_h, order),
        }
    }
}

/// `b`: the exponential's series without its first terms, by B(h).
fn right_side(h: f32, b_h: f32, order: usize) -> Vec<f32> {
    let mut phi = h.exp_m1() / h - 1.0;
    let mut factorial = 1.0;
    let mut next = |index: usize| {
        let value = phi * factorial / b_h;
        factorial *= (index + 1) as f32;
        phi = phi / h - 1.0 / factorial;
        value
    };
    (1..=order).map(&mut next).collect()
}

/// Solves the equations whose matrix is Vandermonde's: row `i` has the powers `i` of `ratios`. At most three of them, by
/// elimination in f64; the ratios differ, for noise levels do.
fn solve(ratios: &[f32], right: &[f32]) -> Vec<f64> {
    let count = ratios.len();
    let row = |power: usize| {
        let left = ratios.iter().map(|&ratio| std::iter::repeat_n(f64::from(ratio), power).product());
        left.chain([f64::from(right[power])]).collect::<Vec<f64>>()
    };
    let mut rows: Vec<Vec<f64>> = (0..count).map(row).collect();
    for pivot in 0..count {
        let best = (pivot..count).max_by(|&a, &b| rows[a][pivot].abs().total_cmp(&rows[b][pivot].abs()));
        rows.swap(pivot, best.unwrap_or(pivot));
        let leader = rows[pivot].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
            let factor = row[pivot] / leader[pivot];
            row.iter_mut().zip(&leader).for_each(|(value, lead)| *value -= factor * lead);
        }
    }
    (0..count).map(|index| rows[index][count] / rows[index][index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solution_fits_its_equations() {
        let (ratios, right) = ([-1.5_f32, -0.7, 1.0], [0.9_f32, 0.4, 0.2]);
        let found = solve(&ratios, &right);
        for (power, right) in (0..).zip(right) {
            let left: f64 = ratios.iter().zip(&found).map(|(&ratio, x)| f64::from(ratio).powi(power) * x).sum();
            assert!((left - f64::from(right)).abs() < 1e-9, "row {power}: {left}");
        }
    }

    #[test]
    fn the_right_side_is_the_series_of_the_exponential() {
        // phi_2(h) = (e^h - 1 - h) / h², times h / B(h); then 2 phi_3(h) h / B(h), and so on.
        let h = -0.5_f32;
        let b_h = h.exp_m1();
        let first = (h.exp() - 1.0 - h) / h / b_h;
        let second = 2.0 * ((h.exp() - 1.0 - h - h * h / 2.0) / (h * h)) / b_h;
        let found = right_side(h, b_h, 2);
        assert!((found[0] - first).abs() < 1e-5 && (found[1] - second).abs() < 1e-5, "{found:?} {first} {second}");
    }
}
