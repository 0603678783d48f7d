//! Whole pictures: every step of a run with guidance, batches, seeds.

use easel_api::ImageSize;
use easel_api::images::SamplerKind;
use easel_inference::pipeline::{Picture, PictureRequest, Pipeline, PipelineError};
use easel_inference::torch::Diffusion;
use easel_inference::torch::diffusion::{Job, Progress};
use tch::{Kind, Tensor};

use crate::checkpoint::{self, Checkpoint, UNET};
use crate::golden::{Golden, MODELS, max_difference};

/// Between a job in a batch and the same job alone, in f32.
const BATCH_TOLERANCE: f64 = 1e-5;

/// The sampler of models trained by flow matching.
pub(crate) const FLOW: SamplerKind = SamplerKind::FlowMatchEuler;

/// The request of `goldens/make.py`.
pub(crate) fn request(model: &str, sampler: SamplerKind) -> PictureRequest {
    let width = if model == "sd1" { 64 } else { 80 };
    PictureRequest {
        prompt: "a photo of a cat".into(),
        negative_prompt: "red apple".into(),
        seed: 7,
        steps: 4,
        guidance_scale: 3.0,
        size: ImageSize::new(width, 48).unwrap(),
        sampler,
        edit: None,
        adapters: Vec::new(),
    }
}

/// All steps of one request alone.
pub(crate) fn run(pipeline: &Diffusion, request: &PictureRequest) -> Job {
    let mut job = pipeline.encode(request).unwrap();
    while !job.is_finished() {
        pipeline.denoise_step(&mut [&mut job]).unwrap();
    }
    job
}

fn draw(pipeline: &Diffusion, request: &PictureRequest) -> Picture {
    pipeline.decode(&run(pipeline, request)).unwrap()
}

#[test]
fn latents_are_the_same_after_every_step_and_so_is_the_picture() {
    for model in MODELS {
        let (golden, pipeline) = (Golden::open(model), checkpoint::load(model));
        for sampler in [SamplerKind::Ddim, SamplerKind::Euler] {
            let mut job = pipeline.encode(&request(model, sampler)).unwrap();
            for step in 0..4 {
                pipeline.denoise_step(&mut [&mut job]).unwrap();
                golden.assert_close(&format!("{sampler}.latents.{step}"), job.latents());
            }
            let picture = pipeline.decode(&job).unwrap();
            assert_picture(&picture, golden.get(&format!("{sampler}.image")));
        }
    }
}

/// `image` is `[1, 3, h, w]` of 0..1. A value may round to the next of 256 levels.
pub(crate) fn assert_picture(picture: &Picture, image: &Tensor) {
    let expected = (image.squeeze_dim(0).permute([1, 2, 0]) * 255.0).round().contiguous().view([-1]);
    assert_eq!(picture.rgb.len(), (picture.size.pixels() * 3) as usize);
    let found = Tensor::from_slice(&picture.rgb).to_kind(Kind::Float);
    assert!(max_difference(&found, &expected) <= 1.0);
}

#[test]
fn a_job_in_a_batch_ends_as_it_does_alone() {
    for model in MODELS {
        let pipeline = checkpoint::load(model);
        let first = request(model, SamplerKind::Ddim);
        let second = PictureRequest { seed: 8, steps: 6, ..request(model, SamplerKind::Euler) };
        let third = PictureRequest { prompt: "red apple".into(), guidance_scale: 2.0, ..first.clone() };
        println!("{model}");
        assert_batched_as_alone(&pipeline, &[first, second, third]);
    }
}

/// The second request is a step ahead of the others, which may end before it.
pub(crate) fn assert_batched_as_alone(pipeline: &Diffusion, requests: &[PictureRequest; 3]) {
    let alone = requests.each_ref().map(|request| run(pipeline, request));
    let mut batch = requests.each_ref().map(|request| pipeline.encode(request).unwrap());
    pipeline.denoise_step(&mut [&mut batch[1]]).unwrap();
    while batch.iter().any(|job| !job.is_finished()) {
        let mut running: Vec<&mut Job> = batch.iter_mut().filter(|job| !job.is_finished()).collect();
        pipeline.denoise_step(&mut running).unwrap();
    }
    for (batched, alone) in batch.iter().zip(&alone) {
        // Latents of Euler start at 14 times those of DDIM, so the bound is of the largest value.
        let scale = alone.latents().abs().max().double_value(&[]).max(1.0);
        let difference = max_difference(batched.latents(), alone.latents()) / scale;
        println!("batch against single: max difference {difference:.1e}");
        assert!(difference <= BATCH_TOLERANCE);
    }
}

/// All samplers that `goldens/samplers.py` ran the tiny checkpoints with.
const NEW: [SamplerKind; 8] = [
    SamplerKind::Ddpm,
    SamplerKind::EulerAncestral,
    SamplerKind::Heun,
    SamplerKind::Dpmpp2m,
    SamplerKind::Dpmpp2mKarras,
    SamplerKind::Dpmpp2mSde,
    SamplerKind::UniPc,
    SamplerKind::Lcm,
];

#[test]
fn every_sampler_draws_from_a_seed_what_diffusers_draws_after_every_model_call() {
    let golden = Golden::open("sampler_runs");
    for model in MODELS {
        let pipeline = checkpoint::load(model);
        for sampler in NEW {
            let job = PictureRequest { steps: 5, ..request(model, sampler) };
            let mut job = pipeline.encode(&job).unwrap();
            let mut kept = Vec::new();
            while !job.is_finished() {
                pipeline.denoise_step(&mut [&mut job]).unwrap();
                kept.push(job.latents().shallow_clone());
            }
            assert_eq!(kept.len(), sampler.model_calls(5) as usize);
            golden.assert_close(&format!("{model}.{sampler}"), &Tensor::cat(&kept, 0));
        }
    }
}

#[test]
fn a_batch_of_all_samplers_ends_as_each_does_alone() {
    let pipeline = checkpoint::load("sd2");
    let requests: Vec<PictureRequest> = (0..)
        .zip([SamplerKind::Ddim, SamplerKind::Euler].into_iter().chain(NEW))
        .map(|(seed, sampler)| PictureRequest { seed, steps: 3 + seed as u32 % 3, ..request("sd2", sampler) })
        .collect();
    let mut batch: Vec<Job> = requests.iter().map(|request| pipeline.encode(request).unwrap()).collect();
    while batch.iter().any(|job| !job.is_finished()) {
        let mut running: Vec<&mut Job> = batch.iter_mut().filter(|job| !job.is_finished()).collect();
        pipeline.denoise_step(&mut running).unwrap();
    }
    for (request, batched) in requests.iter().zip(&batch) {
        let alone = run(&pipeline, request);
        let scale = alone.latents().abs().max().double_value(&[]).max(1.0);
        let difference = max_difference(batched.latents(), alone.latents()) / scale;
        println!("{} in a batch of all samplers: max difference {difference:.1e}", request.sampler);
        assert!(difference <= BATCH_TOLERANCE, "{}: {difference}", request.sampler);
    }
}

#[test]
fn a_job_that_is_begun_here_and_ended_there_is_the_same_to_the_bit() {
    let (here, there) = (checkpoint::load("sd1"), checkpoint::load("sd1"));
    for sampler in [SamplerKind::Heun, SamplerKind::Dpmpp2mSde, SamplerKind::UniPc, SamplerKind::EulerAncestral] {
        let request = request("sd1", sampler);
        let stayed = run(&here, &request);
        let mut begun = here.encode(&request).unwrap();
        (0..3).for_each(|_| here.denoise_step(&mut [&mut begun]).unwrap());
        let Progress { step, latents, history } = begun.progress();
        let progress = Progress { step: *step, latents: latents.copy(), history: history.clone() };
        let mut ended = there.encode(&request).unwrap().resumed(progress);
        while !ended.is_finished() {
            there.denoise_step(&mut [&mut ended]).unwrap();
        }
        assert_eq!(ended.latents(), stayed.latents(), "{sampler}");
    }
}

#[test]
fn a_batch_without_guidance_runs_one_row_a_job_and_ignores_the_negative_prompt() {
    let pipeline = checkpoint::load("sd1");
    let plain = PictureRequest { guidance_scale: 1.0, ..request("sd1", SamplerKind::Ddim) };
    let other = PictureRequest { negative_prompt: "a dog".into(), ..plain.clone() };
    assert_eq!(pipeline.batch_key(&plain).rows, 1);
    assert_eq!(draw(&pipeline, &plain), draw(&pipeline, &other));
    assert_ne!(draw(&pipeline, &plain), draw(&pipeline, &request("sd1", SamplerKind::Ddim)));
}

#[test]
fn the_same_seed_draws_the_same_picture_and_another_seed_another() {
    let pipeline = checkpoint::load("sd1");
    let request = request("sd1", SamplerKind::Euler);
    assert_eq!(draw(&pipeline, &request), draw(&pipeline, &request));
    for seed in [8, u64::MAX] {
        assert_ne!(draw(&pipeline, &request), draw(&pipeline, &PictureRequest { seed, ..request.clone() }));
    }
}

#[test]
fn jobs_share_a_key_exactly_when_their_tensors_fit() {
    let pipeline = checkpoint::load("sd1");
    let first = request("sd1", SamplerKind::Ddim);
    let key = pipeline.batch_key(&first);
    assert_eq!((key.input_channels, key.height, key.width, key.text_length, key.rows), (4, 12, 16, 77, 2));
    let other_sampler = PictureRequest { steps: 9, ..request("sd1", SamplerKind::Euler) };
    assert_eq!(pipeline.batch_key(&other_sampler), key);
    let wider = PictureRequest { size: ImageSize::new(80, 48).unwrap(), ..first };
    assert_ne!(pipeline.batch_key(&wider), key);
}

#[test]
fn a_step_too_many_and_a_batch_that_does_not_fit_fail_without_moving_a_job() {
    let pipeline = checkpoint::load("sd1");
    let mut done = run(&pipeline, &request("sd1", SamplerKind::Ddim));
    let mut fresh = pipeline.encode(&request("sd1", SamplerKind::Ddim)).unwrap();
    let wide = PictureRequest { size: ImageSize::new(80, 48).unwrap(), ..request("sd1", SamplerKind::Ddim) };
    let mut wide = pipeline.encode(&wide).unwrap();
    let before = fresh.latents().copy();
    for bad in [&mut done, &mut wide] {
        let error = pipeline.denoise_step(&mut [&mut fresh, bad]).unwrap_err();
        assert!(matches!(error, PipelineError::Failed { step: "denoise a step", .. }), "{error:?}");
        assert_eq!(fresh.latents(), &before);
    }
    pipeline.denoise_step(&mut []).unwrap();
}

#[test]
fn requests_that_a_model_cannot_draw_are_refused_with_a_reason() {
    let pipeline = checkpoint::load("sd1");
    let first = request("sd1", SamplerKind::Ddim);
    for (steps, reason) in [(0, "at least 1 step"), (1001, "too many"), (1000, "too many")] {
        let error = pipeline.encode(&PictureRequest { steps, ..first.clone() }).unwrap_err();
        assert!(matches!(&error, PipelineError::Unsupported(text) if text.contains(reason)), "{error:?}");
    }
}

#[test]
fn numbers_gone_wrong_are_an_error_and_not_a_black_picture() {
    let checkpoint = Checkpoint::copy_of("sd1");
    checkpoint.edit_weights(UNET, |tensors| {
        let (_, bias) = tensors.iter_mut().find(|(key, _)| key == "conv_out.bias").unwrap();
        *bias = bias.full_like(f64::NAN);
    });
    let pipeline = checkpoint.load().unwrap();
    let job = run(&pipeline, &request("sd1", SamplerKind::Ddim));
    assert!(matches!(pipeline.decode(&job), Err(PipelineError::NotFinite)));
}
