//! Noise levels as solvers count them: noise over picture, from large to small.
//! Transcribed from diffusers 0.42.1, `schedulers/scheduling_euler_discrete.py` and `.._dpmsolver_multistep.py`.

use tch::Tensor;

use super::SamplerError;
use super::schedule::{BetaSchedule, FinalSigma, NoiseSchedule, Spacing};

/// The smallest f16 above zero: stands for "no picture left", whose sigma would be infinite.
const ALMOST_ZERO_ALPHA: f32 = 1.0 / 16_777_216.0;
/// How much closer Karras' levels lie at the end than at the begin.
const RHO: f64 = 7.0;

/// Times and noise levels of a run whose latents are the picture with the noise beside it, not scaled down.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Levels {
    pub(super) timesteps: Vec<f32>,
    /// One more than steps.
    pub(super) sigmas: Vec<f32>,
    pub(super) init_noise_sigma: f32,
}

impl Levels {
    pub(super) fn new(schedule: &NoiseSchedule, count: u32, karras: bool, end: f32) -> Result<Self, SamplerError> {
        let spacing = schedule.spacing.unwrap_or(Spacing::Linspace);
        let mut timesteps: Vec<f32> = schedule.times(spacing, count)?.iter().map(|&time| time as f32).collect();
        let trained = trained(schedule);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&time| interpolate(&trained, time)).collect();
        if karras {
            sigmas = self::karras(sigmas[0], sigmas[sigmas.len() - 1], sigmas.len());
            let logarithms = logarithms(&trained);
            timesteps = sigmas.iter().map(|&sigma| time_of(sigma, &logarithms) as f32).collect();
        }
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).chain([end]).collect();
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match spacing {
            Spacing::Linspace | Spacing::Trailing => max,
            Spacing::Leading => (max * max + 1.0).sqrt(),
        };
        Ok(Self { timesteps, sigmas, init_noise_sigma })
    }

    /// The model was trained on latents of variance 1; here the noise is not scaled down but added.
    pub(super) fn scale_model_input(&self, latents: &Tensor, step: usize) -> Tensor {
        let sigma = self.sigmas[step];
        latents / f64::from((sigma * sigma + 1.0).sqrt())
    }
}

/// Times and noise levels as DPM-Solver++ and `UniPC` visit them; the latents keep the variance 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MultistepLevels {
    pub(super) timesteps: Vec<f32>,
    /// One more than steps.
    pub(super) sigmas: Vec<f32>,
}

impl MultistepLevels {
    /// `whole` makes a whole number of a time that is found from a Karras level.
    pub(super) fn new(
        schedule: &NoiseSchedule,
        count: u32,
        karras: bool,
        whole: fn(f64) -> f64,
    ) -> Result<Self, SamplerError> {
        let times = schedule.times_above(Spacing::Linspace, count)?;
        let mut times: Vec<f64> = times.into_iter().map(f64::round_ties_even).collect();
        let trained = trained(schedule);
        let mut sigmas: Vec<f64> = times.iter().map(|&time| interpolate(&trained, time as f32)).collect();
        if karras {
            let logarithms = logarithms(&trained);
            // Of all that was trained, whatever the spacing.
            let (first, last) = (f64::from(trained[trained.len() - 1]), f64::from(trained[0]));
            sigmas = self::karras(first, last, sigmas.len());
            times = sigmas.iter().map(|&sigma| whole(time_of(sigma, &logarithms))).collect();
        }
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        if sigmas.windows(2).any(|pair| pair[0] <= pair[1]) {
            // A step would have no length, and the next would divide by it.
            return Err(SamplerError::TooManySteps { steps: count, trained: schedule.trained_steps() });
        }
        let timesteps = times.into_iter().map(|time| time as f32).collect();
        Ok(Self { timesteps, sigmas: sigmas.into_iter().chain([end(schedule)]).collect() })
    }
}

/// How DPM-Solver++ makes whole numbers of times: of the cosine schedule's it drops the fraction.
pub(super) fn whole_time(schedule: &NoiseSchedule) -> fn(f64) -> f64 {
    match schedule.beta_schedule {
        BetaSchedule::SquaredcosCapV2 => f64::trunc,
        BetaSchedule::Linear | BetaSchedule::ScaledLinear => f64::round_ties_even,
    }
}

/// Where a run ends by `final_sigmas_type`.
pub(super) fn end(schedule: &NoiseSchedule) -> f32 {
    match schedule.solver.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => sigma_of(schedule.alphas_cumprod[0]),
    }
}

/// Noise over picture at each trained time step.
fn trained(schedule: &NoiseSchedule) -> Vec<f32> {
    let mut alphas = schedule.alphas_cumprod.clone();
    if let Some(last) = alphas.last_mut().filter(|_| schedule.zero_snr) {
        *last = ALMOST_ZERO_ALPHA;
    }
    alphas.into_iter().map(sigma_of).collect()
}

fn sigma_of(alpha: f32) -> f32 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// numpy.interp over the indices of `values`: in f64, and beyond the ends the value at the end.
fn interpolate(values: &[f32], at: f32) -> f64 {
    let last = values.len() - 1;
    let index = (at.max(0.0) as usize).min(last);
    let (low, high) = (f64::from(values[index]), f64::from(values[(index + 1).min(last)]));
    low + (high - low) * (f64::from(at) - index as f64).clamp(0.0, 1.0)
}

/// `_convert_to_karras`: formula (5) of <https://arxiv.org/abs/2206.00364>.
fn karras(first: f64, last: f64, count: usize) -> Vec<f64> {
    let (from, to) = (first.powf(1.0 / RHO), last.powf(1.0 / RHO));
    let step = 1.0 / (count.max(2) - 1) as f64;
    (0..count).map(|index| (from + index as f64 * step * (to - from)).powf(RHO)).collect()
}

fn logarithms(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().map(|sigma| sigma.ln()).collect()
}

/// `_sigma_to_t`: the time between two trained ones, along the logarithm of the noise level.
fn time_of(sigma: f64, logarithms: &[f32]) -> f64 {
    let logarithm = sigma.max(1e-10).ln();
    let below = logarithms.partition_point(|&trained| f64::from(trained) <= logarithm);
    let index = below.saturating_sub(1).min(logarithms.len() - 2);
    let (low, high) = (logarithms[index], logarithms[index + 1]);
    let weight = ((f64::from(low) - logarithm) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * index as f64 + weight * (index + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::sampler::schedule::Betas;

    fn schedule() -> NoiseSchedule {
        let schedule = BetaSchedule::ScaledLinear;
        NoiseSchedule::new(Betas { schedule, start: 0.00085, end: 0.012, count: 1000, zero_snr: false })
    }

    #[test]
    fn karras_levels_begin_and_end_where_the_trained_ones_do_and_lie_closer_at_the_end() {
        let levels = MultistepLevels::new(&schedule(), 10, true, f64::round_ties_even).unwrap();
        let trained = trained(&schedule());
        assert!((levels.sigmas[0] - trained[999]).abs() < 1e-4);
        assert!((levels.sigmas[9] - trained[0]).abs() < 1e-6);
        assert_eq!((levels.sigmas[10], levels.timesteps[0], levels.timesteps[9]), (0.0, 999.0, 0.0));
        let lengths: Vec<f32> = levels.sigmas.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] > pair[1]), "{lengths:?}");
    }

    #[test]
    fn the_time_of_a_trained_level_is_its_index() {
        let trained = trained(&schedule());
        let logarithms = logarithms(&trained);
        for index in [0, 1, 500, 998, 999] {
            let time = time_of(f64::from(trained[index]), &logarithms);
            assert!((time - index as f64).abs() < 1e-3, "{index}: {time}");
        }
    }

    #[test]
    fn more_steps_than_levels_are_refused_and_not_divided_by() {
        let leading = NoiseSchedule { spacing: Some(Spacing::Leading), ..schedule() };
        for (schedule, steps) in [(leading, 1000), (schedule(), 1000)] {
            let refused = MultistepLevels::new(&schedule, steps, false, f64::round_ties_even);
            assert_eq!(refused, Err(SamplerError::TooManySteps { steps: 1000, trained: 1000 }));
        }
    }
}
