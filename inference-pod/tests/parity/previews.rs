//! A preview looks like the picture that it announces, and the more so the later it is.

use std::path::PathBuf;
use std::time::Instant;

use easel_api::images::SamplerKind;
use easel_inference::pipeline::{Picture, PictureRequest, Pipeline};
use easel_inference::torch::Diffusion;

use crate::checkpoint::load_from;

const WISHES: [(&str, u64); 6] =
    [("red heart", 7), ("pizza", 3), ("fire", 5), ("cat face", 1), ("crying face", 2), ("rose", 1)];

fn emoji() -> Diffusion {
    load_from(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/emoji")).unwrap()
}

fn request((prompt, seed): (&str, u64), sampler: SamplerKind, steps: u32) -> PictureRequest {
    PictureRequest {
        prompt: prompt.into(),
        negative_prompt: String::new(),
        seed,
        steps,
        guidance_scale: 3.0,
        size: "64x64".parse().unwrap(),
        sampler,
        edit: None,
        adapters: Vec::new(),
    }
}

/// The preview after every model call, and the picture.
fn drawn(pipeline: &Diffusion, request: &PictureRequest) -> (Vec<Picture>, Picture) {
    let mut job = pipeline.encode(request).unwrap();
    assert!(pipeline.preview(&job).unwrap().is_none(), "there is nothing to see before the first step");
    let mut previews = Vec::new();
    while !job.is_finished() {
        pipeline.denoise_step(&mut [&mut job]).unwrap();
        previews.push(pipeline.preview(&job).unwrap().unwrap());
    }
    (previews, pipeline.decode(&job).unwrap())
}

/// Mean of every 8x8 pixels, which is all that a latent of this model can say by itself.
fn pooled(picture: &Picture) -> Vec<f64> {
    let (width, height) = (picture.size.width() as usize, picture.size.height() as usize);
    let mean = |x: usize, y: usize, channel: usize| {
        let inside = (0..64).map(|at| picture.rgb[3 * ((y + at / 8) * width + x + at % 8) + channel]);
        inside.map(f64::from).sum::<f64>() / 64.0
    };
    let places = (0..height).step_by(8).flat_map(|y| (0..width).step_by(8).map(move |x| (x, y)));
    places.flat_map(|(x, y)| (0..3).map(move |channel| mean(x, y, channel))).collect()
}

/// Decibels between the colours of the same places.
fn psnr(left: &Picture, right: &Picture) -> f64 {
    let (left, right) = (pooled(left), pooled(right));
    let squares: f64 = left.iter().zip(&right).map(|(left, right)| (left - right).powi(2)).sum();
    20.0 * 255.0_f64.log10() - 10.0 * (squares / left.len() as f64).log10()
}

#[test]
fn the_preview_of_a_finished_picture_has_its_colours_in_their_places() {
    let pipeline = emoji();
    let unfitted = emoji();
    for which in ["first, which fits the colours", "next"] {
        let mut job = unfitted.encode(&request(WISHES[0], SamplerKind::Ddim, 20)).unwrap();
        unfitted.denoise_step(&mut [&mut job]).unwrap();
        let started = Instant::now();
        unfitted.preview(&job).unwrap();
        println!("the {which} preview takes {:?}", started.elapsed());
    }
    let pictures = WISHES.map(|wish| drawn(&pipeline, &request(wish, SamplerKind::Ddim, 20)));
    let (mut near, mut far) = (0.0, 0.0);
    for (index, ((prompt, _), (previews, picture))) in WISHES.iter().zip(&pictures).enumerate() {
        let last = previews.last().unwrap();
        let (_, other) = &pictures[(index + 1) % pictures.len()];
        println!("{prompt}: {:.1} dB, beside another picture {:.1} dB", psnr(last, picture), psnr(last, other));
        assert!(psnr(last, picture) > psnr(last, other) + 2.0, "{prompt}");
        near += psnr(last, picture) / WISHES.len() as f64;
        far += psnr(last, other) / WISHES.len() as f64;
    }
    println!("mean: {near:.1} dB, beside another picture {far:.1} dB");
    assert!(near > 17.5 && near > far + 3.0, "{near} dB, {far} dB");
}

#[test]
fn previews_come_closer_to_the_picture_whatever_the_sampler() {
    let pipeline = emoji();
    for sampler in [
        SamplerKind::Ddim,
        SamplerKind::Ddpm,
        SamplerKind::Euler,
        SamplerKind::EulerAncestral,
        SamplerKind::Dpmpp2m,
        SamplerKind::UniPc,
        SamplerKind::Lcm,
    ] {
        let mut sums = [0.0; 4];
        for wish in &WISHES[..2] {
            let (previews, picture) = drawn(&pipeline, &request(*wish, sampler, 8));
            let last = previews.len() - 1;
            for (sum, at) in sums.iter_mut().zip([0, last / 4, last / 2, last]) {
                *sum += psnr(&previews[at], &picture) / 2.0;
            }
        }
        println!("{sampler}: {sums:.1?} dB after the first step, a quarter, a half, all");
        assert!(sums.is_sorted_by(|early, late| early <= &(late + 0.3)), "{sampler}: {sums:?}");
        assert!(sums[3] > sums[0] + 1.0, "{sampler}: {sums:?}");
    }
}

#[test]
fn the_same_request_has_the_same_previews() {
    let wish = request(("red heart", 7), SamplerKind::Euler, 2);
    let [(first, _), (again, _)] = [(); 2].map(|()| drawn(&emoji(), &wish));
    assert_eq!(first, again);
}
