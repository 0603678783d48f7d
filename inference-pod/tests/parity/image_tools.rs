//! The two networks that work on finished pictures, against the programs that their weights were published for:
//! `PyTorch` and ncnn for the upscaler, onnxruntime and rembg's steps for the cut-out. See `goldens/image_tools.py`.

use std::path::PathBuf;

use easel_inference::cut_out::CutOut;
use easel_inference::pipeline::{LoadError, Picture, PipelineError};
use easel_inference::torch::Placement;
use easel_inference::torch::u2net::{U2NetP, normalised};
use easel_inference::torch::upscale::{SrvggNetCompact, Upscaler};
use easel_inference::upscale::Upscale;
use tch::{Kind, Tensor};

use crate::golden::{Golden, check};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn upscaler() -> SrvggNetCompact {
    SrvggNetCompact::load(&folder("upscale"), Placement::REFERENCE).unwrap()
}

fn cut_out() -> U2NetP {
    U2NetP::load(&folder("cut-out"), Placement::REFERENCE).unwrap()
}

/// Of `[height, width, rgb]` bytes.
fn picture(bytes: &Tensor) -> Picture {
    let size = format!("{}x{}", bytes.size()[1], bytes.size()[0]).parse().unwrap();
    Picture { size, rgb: Vec::try_from(bytes.flatten(0, -1)).unwrap() }
}

#[test]
fn the_upscaler_computes_as_pytorch_does() {
    let (golden, model) = (Golden::open("upscale"), upscaler());
    golden.assert_close("noise.torch", &model.forward(golden.get("noise")));
    let pizza = golden.get("pizza").to_kind(Kind::Float).permute([2, 0, 1]).unsqueeze(0) / 255.0;
    golden.assert_close("pizza.torch", &model.forward(&pizza));
}

/// From the published file, which no step of the conversion has touched: ncnn stores 16 bits and computes in 32.
#[test]
fn the_upscaler_computes_as_ncnn_does_with_the_published_weights() {
    let (golden, model) = (Golden::open("upscale"), upscaler());
    let pizza = golden.get("pizza").to_kind(Kind::Float).permute([2, 0, 1]).unsqueeze(0) / 255.0;
    golden.assert_close("pizza.ncnn", &model.forward(&pizza));
}

#[test]
fn an_upscaled_picture_is_four_times_as_wide_and_high_and_rounded_to_the_nearest() {
    let golden = Golden::open("upscale");
    let small = picture(golden.get("pizza"));
    let large = Upscaler::load(&folder("upscale"), Placement::REFERENCE).unwrap().upscale(&small).unwrap();
    assert_eq!(large.size.to_string(), "128x128");
    let found = Tensor::from_slice(&large.rgb).view([128, 128, 3]).permute([2, 0, 1]).unsqueeze(0);
    let expected = golden.get("pizza.torch").clamp(0.0, 1.0) * 255.0;
    // Half a step of rounding, and what f32 may differ by.
    let difference = check(&found, &expected, 0.5 + 255.0 * 1e-4).unwrap();
    println!("an upscaled picture is off by {difference:.3}/255 at most");
}

/// The largest difference is what f32 may make of sums in another order: a tile is seen with all that reaches it.
#[test]
fn a_picture_in_tiles_is_the_picture_in_one_piece() {
    let size = "176x144".parse().unwrap();
    let rgb: Vec<u8> = (0..176 * 144 * 3_u32).map(|at| (at * 7919 % 251) as u8).collect();
    let tiled = Upscaler::load(&folder("upscale"), Placement::REFERENCE).unwrap();
    let tiled = tiled.upscale(&Picture { size, rgb: rgb.clone() }).unwrap();
    let pixels = Tensor::from_slice(&rgb).view([144, 176, 3]).permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float);
    let whole = upscaler().forward(&(pixels / 255.0)).clamp(0.0, 1.0) * 255.0;
    let found = Tensor::from_slice(&tiled.rgb).view([576, 704, 3]).permute([2, 0, 1]).unsqueeze(0);
    let difference = check(&found, &whole, 0.5 + 255.0 * 1e-4).unwrap();
    println!("a picture in tiles is off by {difference:.3}/255 at most");
}

#[test]
fn a_picture_that_would_grow_too_large_is_refused() {
    let size = "1024x1024".parse().unwrap();
    let upscaler = Upscaler::load(&folder("upscale"), Placement::REFERENCE).unwrap();
    let error = upscaler.upscale(&Picture { size, rgb: vec![0; 1024 * 1024 * 3] }).unwrap_err();
    assert!(matches!(error, PipelineError::Unsupported(_)), "{error:?}");
    assert!(error.to_string().contains("1024x1024"), "{error}");
}

#[test]
fn the_cut_out_computes_as_onnxruntime_does() {
    let (golden, model) = (Golden::open("cut_out"), cut_out());
    for name in ["noise", "odd"] {
        golden.assert_close(&format!("{name}.d0"), &tch::no_grad(|| model.forward(golden.get(name))));
    }
    golden.assert_close("rose.d0", &tch::no_grad(|| model.forward(&normalised(golden.get("rose.resized")))));
    let expected = golden.get("rose.d0");
    let (least, greatest) = (expected.min().double_value(&[]), expected.max().double_value(&[]));
    assert!(least < 0.01 && greatest > 0.99, "a golden that is {least} to {greatest} proves little");
}

/// Resizing is another library's, and both round to bytes on the way; so one of 255, and hardly any on average.
#[test]
fn masks_are_those_of_rembg() {
    let (golden, model) = (Golden::open("cut_out"), cut_out());
    for name in ["rose", "car", "wide"] {
        let mask = model.mask(&picture(golden.get(&format!("{name}.picture")))).unwrap();
        let expected = golden.get(&format!("{name}.mask")).to_kind(Kind::Double);
        let found = Tensor::from_slice(&mask.alpha).view_as(&expected).to_kind(Kind::Double);
        let off = (found - expected).abs();
        let (worst, mean) = (off.max().double_value(&[]), off.mean(Kind::Double).double_value(&[]));
        println!("mask of {name}: largest difference {worst}/255, {mean:.3} on average");
        assert!(worst <= 2.0 && mean <= 0.05, "{name}: {worst}/255, {mean} on average");
    }
}

#[test]
fn pictures_of_one_colour_have_a_mask_too() {
    let model = cut_out();
    for value in [0, 255] {
        let size = "32x16".parse().unwrap();
        let mask = model.mask(&Picture { size, rgb: vec![value; 32 * 16 * 3] }).unwrap();
        assert_eq!(mask.alpha.len(), 32 * 16);
    }
}

#[test]
fn weights_of_another_network_are_refused() {
    let error = U2NetP::load(&folder("upscale"), Placement::REFERENCE).unwrap_err();
    assert!(matches!(error, LoadError::Failed { .. }), "{error:?}");
    let error = SrvggNetCompact::load(&folder("cut-out"), Placement::REFERENCE).unwrap_err();
    assert!(matches!(error, LoadError::Failed { .. }), "{error:?}");
}
