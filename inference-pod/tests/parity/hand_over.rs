//! A picture that moves from one pipeline to another becomes the picture that it would have become.

use std::time::Instant;

use easel_api::images::SamplerKind;
use easel_inference::pipeline::{PictureRequest, Pipeline, PipelineError};
use easel_inference::torch::Diffusion;
use easel_inference::torch::diffusion::Job;

use crate::checkpoint;
use crate::golden::Golden;
use crate::img2img::{PARTS, wish};
use crate::runs::{FLOW, request, run};

/// All that a tiny checkpoint of `sd2` draws with.
const SAMPLERS: [SamplerKind; 10] = [
    SamplerKind::Ddim,
    SamplerKind::Ddpm,
    SamplerKind::Euler,
    SamplerKind::EulerAncestral,
    SamplerKind::Heun,
    SamplerKind::Dpmpp2m,
    SamplerKind::Dpmpp2mKarras,
    SamplerKind::Dpmpp2mSde,
    SamplerKind::UniPc,
    SamplerKind::Lcm,
];

fn steps(pipeline: &Diffusion, job: &mut Job, count: usize) {
    for _ in 0..count {
        pipeline.denoise_step(&mut [&mut *job]).unwrap();
    }
}

/// Interrupted after every step, alone in its batch: every bit of the picture is as without.
fn assert_moves(from: &Diffusion, to: &Diffusion, request: &PictureRequest) {
    let whole = run(from, request);
    let picture = from.decode(&whole).unwrap();
    let calls = request.model_calls() as usize;
    for taken in 0..calls {
        let mut job = from.encode(request).unwrap();
        steps(from, &mut job, taken);
        let exported = from.export(&job).unwrap();
        drop(job);
        let mut resumed = to.resume(request, &exported).unwrap();
        assert_eq!(resumed.progress().step, taken);
        steps(to, &mut resumed, calls - taken);
        assert!(resumed.is_finished());
        assert!(resumed.latents().equal(whole.latents()), "{} moved after step {taken}", request.sampler);
        assert_eq!(to.decode(&resumed).unwrap(), picture);
    }
}

#[test]
fn a_picture_moved_after_any_step_is_the_same_to_the_bit_with_every_sampler() {
    let (from, to) = (checkpoint::load("sd2"), checkpoint::load("sd2"));
    for sampler in SAMPLERS {
        assert_moves(&from, &to, &PictureRequest { steps: 5, ..request("sd2", sampler) });
    }
    let (from, to) = (checkpoint::load("flux"), checkpoint::load("flux"));
    assert_moves(&from, &to, &PictureRequest { steps: 4, ..request("flux", FLOW) });
}

/// What a request starts from is made again where it goes on: its picture's latents and their noise.
#[test]
fn a_picture_drawn_on_or_filled_in_moves_as_well() {
    let (from, to, golden) = (checkpoint::load("sd1"), checkpoint::load("sd1"), Golden::open("img2img"));
    for part in PARTS {
        for sampler in [SamplerKind::EulerAncestral, SamplerKind::UniPc] {
            assert_moves(&from, &to, &wish(&golden, "sd1", part, sampler));
        }
    }
}

/// With another batch a matrix product may round in another way. The bound is one level of 256.
#[test]
fn a_picture_moved_into_another_batch_is_the_same_within_a_level() {
    let (from, to) = (checkpoint::load("sd2"), checkpoint::load("sd2"));
    let mut worst = 0;
    for sampler in SAMPLERS {
        let request = PictureRequest { steps: 6, ..request("sd2", sampler) };
        let whole = from.decode(&run(&from, &request)).unwrap();
        let mut job = from.encode(&request).unwrap();
        steps(&from, &mut job, 2);
        let mut resumed = to.resume(&request, &from.export(&job).unwrap()).unwrap();
        let others =
            (0..3).map(|seed| PictureRequest { seed, prompt: "red apple".into(), steps: 20, ..request.clone() });
        let mut others: Vec<Job> = others.map(|other| to.encode(&other).unwrap()).collect();
        while !resumed.is_finished() {
            let mut batch: Vec<&mut Job> = others.iter_mut().chain([&mut resumed]).collect();
            to.denoise_step(&mut batch).unwrap();
        }
        let moved = to.decode(&resumed).unwrap();
        let off = whole.rgb.iter().zip(&moved.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        println!("{sampler} moved into a batch of four: at most {off} of 255");
        worst = worst.max(off);
    }
    assert!(worst <= 1, "{worst}");
}

#[test]
fn what_an_export_costs_is_little_beside_a_step() {
    let pipeline = checkpoint::load("sd2");
    let request = PictureRequest { steps: 8, ..request("sd2", SamplerKind::UniPc) };
    let mut job = pipeline.encode(&request).unwrap();
    steps(&pipeline, &mut job, 3); // its history is full
    let began = Instant::now();
    steps(&pipeline, &mut job, 4);
    let step = began.elapsed() / 4;
    let began = Instant::now();
    let exported = pipeline.export(&job).unwrap();
    let export = began.elapsed();
    println!("{} bytes: {export:?} beside a step of {step:?}", exported.len());
    let values = job.latents().numel();
    // Latents, two outputs and what was before, in f32, and a header.
    assert!((4 * 4 * values..4 * 4 * values + 1024).contains(&exported.len()), "{} of {values}", exported.len());
}

#[test]
fn a_snapshot_that_is_not_of_the_request_or_was_spoilt_is_refused() {
    let pipeline = checkpoint::load("sd2");
    let asked = PictureRequest { steps: 6, ..request("sd2", SamplerKind::UniPc) };
    let mut job = pipeline.encode(&asked).unwrap();
    steps(&pipeline, &mut job, 3);
    let exported = pipeline.export(&job).unwrap();
    let refused = |request: &PictureRequest, bytes: &[u8]| match pipeline.resume(request, bytes) {
        Err(PipelineError::Snapshot(why)) => why,
        other => panic!("{other:?}"),
    };
    let wider = PictureRequest { size: "96x48".parse().unwrap(), ..asked.clone() };
    assert!(refused(&wider, &exported).contains("latents"));
    let seed = PictureRequest { seed: 8, ..asked.clone() };
    assert!(refused(&seed, &exported).contains("random numbers"));
    let shorter = PictureRequest { steps: 3, ..asked.clone() };
    assert!(refused(&shorter, &exported).contains("step 3 of 3"));
    let mut spoilt = exported.clone();
    let end = spoilt.len();
    spoilt[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refused(&asked, &spoilt).contains("not numbers"));
    for cut in [0, 7, 100, exported.len() - 1] {
        refused(&asked, &exported[..cut]);
    }
    let text = |from: &str, to: &str| {
        let at = exported.windows(from.len()).position(|found| found == from.as_bytes()).unwrap();
        let mut changed = exported.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        changed
    };
    assert!(refused(&asked, &text("\"step\":\"3\"", "\"step\":\"1\"")).contains("history"));
    assert!(refused(&asked, &text("\"draws\":\"1\"", "\"draws\":\"9\"")).contains("random numbers"));
    assert!(refused(&asked, &text("output.0", "outputs0")).contains("history"));
}
