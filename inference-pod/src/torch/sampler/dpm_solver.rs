//! DPM-Solver++ of several steps, deterministic and with added noise: the picture that the model means is continued along
//! its last values. Transcribed from diffusers 0.42.1, `schedulers/scheduling_dpmsolver_multistep.py`.

use tch::Tensor;

use super::SamplerError;
use super::history::{History, Moved, with_noise};
use super::level::Level;
use super::schedule::{FinalSigma, NoiseSchedule, Prediction, SolverType};
use super::sigmas::{MultistepLevels, whole_time};

/// Runs shorter than this end with steps of a lower order, if the scheduler's file does not say otherwise.
const SHORT_RUN: usize = 15;

#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolver {
    levels: MultistepLevels,
    prediction: Prediction,
    /// `sde-dpmsolver++`.
    stochastic: bool,
    order: usize,
    /// `solver_type`: the second term by Heun's rule, not by the midpoint's.
    heun: bool,
    /// Orders of the last step and of that before it.
    last_orders: [usize; 2],
}

impl DpmSolver {
    pub fn new(schedule: &NoiseSchedule, count: u32, karras: bool, stochastic: bool) -> Result<Self, SamplerError> {
        let solver = &schedule.solver;
        let levels = MultistepLevels::new(schedule, count, karras || solver.karras, whole_time(schedule))?;
        let lower = solver.lower_order_final && (count as usize) < SHORT_RUN;
        let euler_last = solver.euler_at_final || lower || solver.final_sigma == FinalSigma::Zero;
        let last_orders = [if euler_last { 1 } else { solver.order }, if lower { 2 } else { solver.order }];
        let heun = solver.kind == SolverType::Heun;
        Ok(Self { levels, prediction: schedule.prediction, stochastic, order: solver.order, heun, last_orders })
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
        let outputs = history.with_output(picture, self.order);
        let order = outputs.len().min(self.order_at(step));
        let (moved, spread) = self.update(step, order, latents, &outputs);
        let Moved { latents, history: History { noise, .. } } = with_noise(moved, spread, history);
        Moved { latents, history: History { outputs, before: None, noise } }
    }

    /// Once there are as many outputs.
    fn order_at(&self, step: usize) -> usize {
        let [last, last_but_one] = self.last_orders;
        match self.steps() - step {
            1 => last.min(self.order),
            2 => last_but_one.min(self.order),
            _ => self.order,
        }
    }

    /// The latents before noise is added, and how much is. `dpm_solver_first_order_update` and those of the second and
    /// third order, for `dpmsolver++` and `sde-dpmsolver++`.
    fn update(&self, step: usize, order: usize, latents: &Tensor, outputs: &[Tensor]) -> (Tensor, f32) {
        let level = |back: usize| Level::of(self.levels.sigmas[step - back]);
        let (from, to) = (level(0), Level::of(self.levels.sigmas[step + 1]));
        let h = to.lambda - from.lambda;
        if h == 0.0 {
            return (latents.shallow_clone(), 0.0); // `sigma_min` after Karras' last level, which is the same
        }
        // Noise takes back half of the way in the logarithm, which is made up for by going twice as far.
        let way = if self.stochastic { 2.0 * h } else { h };
        let kept = if self.stochastic { to.sigma / from.sigma * (-h).exp() } else { to.sigma / from.sigma };
        let fall = (-way).exp() - 1.0;
        let gain = -to.alpha * fall;
        let newest = &outputs[outputs.len() - 1];
        let mut moved = latents * f64::from(kept) + newest * f64::from(gain);
        let bent = to.alpha * (fall / way + 1.0);
        if order == 2 {
            let slope = slope(outputs, 0, (from.lambda - level(1).lambda) / h);
            moved += slope * f64::from(if self.heun { bent } else { 0.5 * gain });
        } else if order == 3 {
            let r0 = (from.lambda - level(1).lambda) / h;
            let r1 = (level(1).lambda - level(2).lambda) / h;
            let (near, far) = (slope(outputs, 0, r0), slope(outputs, 1, r1));
            let change = &near - far;
            // diffusers has the half with another sign where noise is added.
            let half = if self.stochastic { -0.5 } else { 0.5 };
            let curve = to.alpha * ((1.0 - (-way).exp() - way) / (way * way) + half);
            let first = near + &change * f64::from(r0 / (r0 + r1));
            moved += first * f64::from(bent) + change * f64::from(1.0 / (r0 + r1) * curve);
        }
        let spread = if self.stochastic { to.sigma * (1.0 - (-way).exp()).sqrt() } else { 0.0 };
        (moved, spread)
    }
}

/// How fast the picture changes between two outputs, `back` steps ago, in units of the coming step.
fn slope(outputs: &[Tensor], back: usize, ratio: f32) -> Tensor {
    let newer = outputs.len() - 1 - back;
    (&outputs[newer] - &outputs[newer - 1]) * f64::from(1.0 / ratio)
}
