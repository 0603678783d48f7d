//! The numbers of the noise side: alphas, times, sigmas, single steps.

use easel_inference::torch::sampler::Sampler;
use easel_inference::torch::sampler::ddim::Ddim;
use easel_inference::torch::sampler::euler::Euler;
use easel_inference::torch::sampler::schedule::{BetaSchedule, Betas, NoiseSchedule, Prediction, Spacing};

use crate::golden::Golden;

/// f32 has 24 bits; alphas are sums over 1000 steps of it.
const RELATIVE: f64 = 1e-5;

fn betas() -> [(&'static str, Betas); 4] {
    let diffusers = Betas { schedule: BetaSchedule::Linear, start: 1e-4, end: 0.02, count: 1000, zero_snr: false };
    let stable = Betas { schedule: BetaSchedule::ScaledLinear, start: 0.00085, end: 0.012, ..diffusers };
    [
        ("linear", diffusers),
        ("scaled_linear", stable),
        ("squaredcos_cap_v2", Betas { schedule: BetaSchedule::SquaredcosCapV2, ..diffusers }),
        ("zero_snr", Betas { zero_snr: true, ..stable }),
    ]
}

fn spaced(betas: Betas) -> [(&'static str, NoiseSchedule); 3] {
    let all = [("leading", Spacing::Leading), ("linspace", Spacing::Linspace), ("trailing", Spacing::Trailing)];
    all.map(|(name, spacing)| {
        (name, NoiseSchedule { spacing: Some(spacing), steps_offset: 1, ..NoiseSchedule::new(betas) })
    })
}

fn stable() -> NoiseSchedule {
    NoiseSchedule { steps_offset: 1, ..NoiseSchedule::new(betas()[1].1) }
}

/// The largest difference, relative where values are above 1.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let of = |(&found, &expected): (&f32, &f64)| (f64::from(found) - expected).abs() / expected.abs().max(1.0);
    found.iter().zip(expected).map(of).fold(0.0, f64::max)
}

fn assert_numbers(golden: &Golden, key: &str, found: &[f32]) {
    let difference = difference(found, &golden.values(key));
    assert!(difference <= RELATIVE, "{key}: {difference}");
}

#[test]
fn alphas_are_the_same_for_every_beta_schedule() {
    let golden = Golden::open("schedules");
    for (name, betas) in betas() {
        let key = format!("{name}.alphas_cumprod");
        let (found, expected) = (betas.alphas_cumprod(), golden.values(&key));
        println!("{key}: max difference {:.1e}", difference(&found, &expected));
        assert_numbers(&golden, &key, &found);
        // Near pure noise the ratio is what counts, and an absolute bound would not see it.
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate().take(990) {
            let ratio = f64::from(*found) / expected;
            assert!((ratio - 1.0).abs() <= 1e-3, "{key} {index}: {found} / {expected}");
        }
    }
}

#[test]
fn times_and_sigmas_are_the_same_for_every_spacing() {
    let golden = Golden::open("schedules");
    for (name, betas) in betas() {
        for (spacing, schedule) in spaced(betas) {
            for steps in [1, 4, 7, 30] {
                let key = format!("{name}.{spacing}.{steps}");
                let v_prediction = NoiseSchedule { prediction: Prediction::VPrediction, ..schedule.clone() };
                let ddim = Ddim::new(&v_prediction, steps).unwrap();
                let times: Vec<f32> = (0..ddim.steps()).map(|step| ddim.timestep(step)).collect();
                assert_numbers(&golden, &format!("{key}.ddim.timesteps"), &times);
                let euler = Euler::new(&schedule, steps).unwrap();
                let times: Vec<f32> = (0..euler.steps()).map(|step| euler.timestep(step)).collect();
                assert_numbers(&golden, &format!("{key}.euler.timesteps"), &times);
                assert_numbers(&golden, &format!("{key}.euler.sigmas"), euler.sigmas());
                assert_numbers(&golden, &format!("{key}.euler.init"), &[euler.init_noise_sigma()]);
            }
        }
    }
}

#[test]
fn one_step_is_the_same_for_every_prediction_type() {
    let golden = Golden::open("solver_steps");
    let (output, sample) = (golden.get("output"), golden.get("sample"));
    let predictions =
        [("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::VPrediction), ("sample", Prediction::Sample)];
    for (name, prediction) in predictions {
        for (flag, clip_sample) in [(true, Some(1.0)), (false, None)] {
            let schedule = NoiseSchedule { prediction, clip_sample, set_alpha_to_one: flag, ..stable() };
            let ddim = Ddim::new(&schedule, 4).unwrap();
            for step in [1, 3] {
                golden.assert_close(&format!("ddim.{name}.{flag}.{step}"), &ddim.step(output, step, sample));
            }
        }
        let euler = Euler::new(&NoiseSchedule { prediction, ..stable() }, 4).unwrap();
        for step in 0..4 {
            golden.assert_close(&format!("euler.{name}.{step}"), &euler.step(output, step, sample));
            golden.assert_close(&format!("euler.scaled.{step}"), &euler.scale_model_input(sample, step));
        }
    }
}

#[test]
fn ddim_refuses_to_divide_by_zero_where_euler_can_start() {
    let schedule = NoiseSchedule { spacing: Some(Spacing::Trailing), ..NoiseSchedule::new(betas()[3].1) };
    let refused = Ddim::new(&schedule, 4).unwrap_err().to_string();
    assert!(refused.starts_with("ddim can't draw with a model that starts from pure noise"), "{refused}");
    assert!(
        refused.ends_with("use euler, euler_ancestral, dpmpp_2m, dpmpp_2m_karras, dpmpp_2m_sde, unipc"),
        "{refused}"
    );
    assert!(Euler::new(&schedule, 4).is_ok());
    let sampler = Sampler::new(easel_api::images::SamplerKind::Euler, &schedule, 4).unwrap();
    assert!(sampler.init_noise_sigma().is_finite());
}
