//! Every sampler against diffusers' schedulers: its files, its times and noise levels, and whole runs.

use std::collections::BTreeMap;
use std::path::Path;

use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use easel_inference::torch::sampler::flow_match_euler::FlowMatchEuler;
use easel_inference::torch::sampler::history::History;
use easel_inference::torch::sampler::noise::Noise;
use easel_inference::torch::sampler::schedule::NoiseSchedule;
use easel_inference::torch::sampler::{Sampler, SamplerError};
use serde_json::Value;
use tch::Tensor;

use crate::golden::{self, Golden, TOLERANCE, max_difference};

/// The seed of `goldens/samplers.py`, `solve`.
const SEED: u64 = 5;

fn files() -> Value {
    serde_json::from_slice(&std::fs::read(golden::folder().join("sampler_solvers.json")).unwrap()).unwrap()
}

/// Reads a scheduler's file as that of a checkpoint.
fn read(text: &str) -> Result<NoiseSchedule, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scheduler")).unwrap();
    std::fs::write(folder.path().join("scheduler/scheduler_config.json"), text).unwrap();
    read_folder(folder.path())
}

fn read_folder(folder: &Path) -> Result<NoiseSchedule, String> {
    NoiseSchedule::read(&Files::trusted(folder).unwrap()).map_err(|error| error.to_string())
}

/// One row of `sampler_solvers.json`.
fn sampler(case: &Value) -> (SamplerKind, Sampler) {
    let kind: SamplerKind = serde_json::from_value(case["sampler"].clone()).unwrap();
    let schedule = read(&case["file"].to_string()).unwrap();
    let steps = case["steps"].as_u64().unwrap() as u32;
    let sampler = Sampler::new(kind, &schedule, steps).unwrap();
    assert_eq!(sampler.steps(), kind.model_calls(steps) as usize, "{kind}, {steps} steps");
    (kind, sampler)
}

/// The first latents and what is remembered then.
fn begin(sampler: &Sampler, shape: &[i64]) -> (Tensor, History) {
    let (drawn, noise) = Noise::new(SEED).next(shape);
    (drawn * f64::from(sampler.init_noise_sigma()), History::new(noise))
}

/// The latents after every step, one behind the other, where the model answers with `outputs` in turn.
fn solve(sampler: &Sampler, outputs: &Tensor) -> Tensor {
    let (mut latents, mut history) = begin(sampler, &outputs.get(0).size());
    let mut kept = Vec::new();
    for (call, step) in (0..).zip(0..sampler.steps()) {
        let moved = sampler.step(&outputs.get(call), step, &latents, &history);
        (latents, history) = (moved.latents, moved.history);
        assert!(history.outputs.len() <= 3, "a history is bounded");
        kept.push(latents.shallow_clone());
    }
    Tensor::cat(&kept, 0)
}

/// The largest difference. Where the first latents are thousands large (of a schedule that ends in pure noise), it is in
/// their unit: f32 itself has steps of 5e-4 there.
fn difference(sampler: &Sampler, found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let unit = f64::from(sampler.init_noise_sigma());
    max_difference(found, expected) / if unit > 1000.0 { unit } else { 1.0 }
}

fn assert_times(golden: &Golden, name: &str, sampler: &Sampler) {
    let times: Vec<f32> = (0..sampler.steps()).map(|step| sampler.timestep(step)).collect();
    let expected = golden.get(&format!("{name}.timesteps"));
    let difference = max_difference(&Tensor::from_slice(&times), expected);
    assert!(times.len() == expected.numel() && difference <= 1e-3, "{name}: times are off by {difference}");
}

fn sigmas(sampler: &Sampler) -> Option<&[f32]> {
    match sampler {
        Sampler::Euler(euler) => Some(euler.sigmas()),
        Sampler::EulerAncestral(euler) => Some(euler.sigmas()),
        Sampler::Heun(heun) => Some(heun.sigmas()),
        Sampler::DpmSolver(solver) => Some(solver.sigmas()),
        Sampler::UniPc(unipc) => Some(unipc.sigmas()),
        Sampler::FlowMatchEuler(euler) => Some(euler.sigmas()),
        Sampler::Ddim(_) | Sampler::Ddpm(_) | Sampler::Lcm(_) => None,
    }
}

fn assert_sigmas(golden: &Golden, name: &str, sampler: &Sampler) {
    let Some(found) = sigmas(sampler) else { return };
    let expected = golden.get(&format!("{name}.sigmas"));
    let largest = expected.max().double_value(&[]).max(1.0);
    let difference = max_difference(&Tensor::from_slice(found), expected) / largest;
    assert!(difference <= 1e-5, "{name}: noise levels are off by {difference}");
}

#[test]
fn every_sampler_moves_latents_as_diffusers_does_whatever_the_file_says() {
    let golden = Golden::open("sampler_solvers");
    let outputs = golden.get("outputs");
    let mut worst: BTreeMap<SamplerKind, (f64, String)> = BTreeMap::new();
    let mut failed = Vec::new();
    for (name, case) in files()["cases"].as_object().unwrap() {
        let (kind, sampler) = sampler(case);
        assert_times(&golden, name, &sampler);
        assert_sigmas(&golden, name, &sampler);
        let found = difference(&sampler, &solve(&sampler, outputs), golden.get(&format!("{name}.latents")));
        let close = found <= TOLERANCE; // false for NaN
        if !close {
            failed.push(format!("{name}: {found:.1e}"));
        }
        let entry = worst.entry(kind).or_insert((0.0, String::new()));
        if found >= entry.0 {
            *entry = (found, name.clone());
        }
    }
    for (kind, (difference, name)) in worst {
        println!("{:<18} largest difference {difference:.1e}, of {name}", kind.as_str());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_picture_that_moves_at_any_step_ends_the_same_to_the_bit() {
    let golden = Golden::open("sampler_solvers");
    let outputs = golden.get("outputs");
    for (name, case) in files()["cases"].as_object().unwrap() {
        if !name.contains(".v_prediction.trailing") && !name.starts_with("options.") {
            continue;
        }
        let (_, sampler) = sampler(case);
        let stayed = solve(&sampler, outputs);
        let (mut latents, mut history) = begin(&sampler, &outputs.get(0).size());
        for (call, step) in (0..).zip(0..sampler.steps()) {
            let moved = sampler.step(&outputs.get(call), step, &latents, &history);
            (latents, history) = carried(&moved.latents, &moved.history);
        }
        let last = stayed.get(-1).unsqueeze(0);
        assert_eq!(latents, last, "{name}");
    }
}

/// Through a file of tensors and text, as another pod would get them.
fn carried(latents: &Tensor, history: &History) -> (Tensor, History) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("progress.safetensors");
    let mut tensors = vec![("latents".to_owned(), latents.shallow_clone())];
    let outputs = history.outputs.iter().enumerate();
    tensors.extend(outputs.map(|(index, output)| (format!("outputs.{index}"), output.shallow_clone())));
    tensors.extend(history.before.iter().map(|before| ("before".to_owned(), before.shallow_clone())));
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let text = serde_json::json!({"seed": history.noise.seed, "draws": history.noise.draws}).to_string();

    let mut read: BTreeMap<String, Tensor> = Tensor::read_safetensors(&path).unwrap().into_iter().collect();
    let said: Value = serde_json::from_str(&text).unwrap();
    let noise = Noise { seed: said["seed"].as_u64().unwrap(), draws: said["draws"].as_u64().unwrap() };
    let latents = read.remove("latents").unwrap();
    let before = read.remove("before");
    (latents, History { outputs: read.into_values().collect(), before, noise })
}

#[test]
fn flow_matching_moves_latents_as_diffusers_does() {
    let golden = Golden::open("sampler_solvers");
    let shifted = |shift, steps| FlowMatchEuler::new(shift, steps, 1000);
    let cases = [
        ("sd3", shifted(3.0, 5)),
        ("plain", shifted(1.0, 4)),
        ("one", shifted(3.0, 1)),
        ("flux", FlowMatchEuler::with_levels(&[1.0, 0.75, 0.5, 0.25], 2.5, 1000)),
    ];
    for (name, made) in cases {
        let name = format!("flow.{name}");
        let sampler = Sampler::for_flow(SamplerKind::FlowMatchEuler, || made).unwrap();
        assert_times(&golden, &name, &sampler);
        assert_sigmas(&golden, &name, &sampler);
        let found =
            difference(&sampler, &solve(&sampler, golden.get("outputs")), golden.get(&format!("{name}.latents")));
        println!("flow_match_euler   {name}: largest difference {found:.1e}");
        assert!(found <= TOLERANCE, "{name}: {found}");
    }
}

#[test]
fn files_are_read_word_for_word_as_diffusers_writes_them() {
    let files = files();
    let whole = files["whole_files"].as_object().unwrap();
    for (class, text) in whole {
        let schedule = read(text.as_str().unwrap()).unwrap_or_else(|error| panic!("{class}: {error}"));
        assert_eq!(schedule.trained_steps(), 1000, "{class}");
    }
    assert!(whole["DPMSolverMultistepScheduler"].as_str().unwrap().contains("-Infinity"));
}

#[test]
fn a_model_and_a_sampler_that_do_not_go_together_are_refused_with_those_that_do() {
    let file = |more: Value| {
        let mut file = serde_json::json!({"_class_name": "DDIMScheduler"});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(&file.to_string()).unwrap()
    };
    let trailing = serde_json::json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"});
    let (plain, sample) = (file(serde_json::json!({})), file(serde_json::json!({"prediction_type": "sample"})));
    let solvers = "dpmpp_2m, dpmpp_2m_karras, dpmpp_2m_sde, unipc";
    let cases = [
        (SamplerKind::FlowMatchEuler, &plain, format!("euler, euler_ancestral, heun, {solvers}, lcm")),
        (SamplerKind::EulerAncestral, &sample, format!("use ddim, ddpm, euler, heun, {solvers}, lcm")),
        (SamplerKind::Heun, &file(trailing.clone()), format!("use euler, euler_ancestral, {solvers}")),
        (SamplerKind::Ddpm, &file(trailing.clone()), format!("use euler, euler_ancestral, {solvers}")),
        (SamplerKind::Lcm, &file(trailing), format!("use euler, euler_ancestral, {solvers}")),
    ];
    for (kind, schedule, instead) in cases {
        let refused = Sampler::new(kind, schedule, 4).unwrap_err().to_string();
        println!("{refused}");
        assert!(refused.starts_with(&format!("{kind} can't draw with a model")) && refused.contains(&instead));
    }
    let refused = Sampler::for_flow(SamplerKind::Ddim, || FlowMatchEuler::new(3.0, 4, 1000)).unwrap_err().to_string();
    assert_eq!(refused, "ddim can't draw with a model trained by flow matching; use flow_match_euler");
}

#[test]
fn lcm_takes_no_more_steps_than_its_model_was_distilled_on_and_no_sampler_takes_none() {
    let schedule = read(r#"{"_class_name": "LCMScheduler", "original_inference_steps": 10}"#).unwrap();
    assert!(Sampler::new(SamplerKind::Lcm, &schedule, 10).is_ok());
    let refused = Sampler::new(SamplerKind::Lcm, &schedule, 11).unwrap_err();
    assert_eq!(refused, SamplerError::TooManyForLcm { steps: 11, original: 10 });
    for kind in SamplerKind::ALL.into_iter().filter(|kind| *kind != SamplerKind::FlowMatchEuler) {
        assert_eq!(Sampler::new(kind, &schedule, 0).unwrap_err(), SamplerError::NoSteps, "{kind}");
        assert!(Sampler::new(kind, &schedule, 1001).is_err(), "{kind}");
    }
}

#[test]
fn a_stream_of_random_numbers_goes_on_from_its_seed_and_the_draws_so_far() {
    let golden = Golden::open("sampler_solvers");
    for (name, shape) in [("3", vec![3]), ("1x4x2x2", vec![1, 4, 2, 2]), ("1x4x3x7", vec![1, 4, 3, 7])] {
        let (first, noise) = Noise::new(SEED).next(&shape);
        let (second, noise) = noise.next(&shape);
        let moved = Noise { seed: SEED, draws: 2 };
        assert_eq!(noise, moved);
        let (third, _) = moved.next(&shape);
        // One generator of torch's that was asked three times.
        let expected = golden.get(&format!("draws.{name}"));
        assert!(max_difference(&Tensor::stack(&[first, second, third], 0), expected) <= 1e-6, "{name}");
        assert!(max_difference(&expected.get(0), &expected.get(1)) > 0.1, "{name}");
    }
}
