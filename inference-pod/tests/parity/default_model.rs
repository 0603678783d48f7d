//! The models of this repository draw what diffusers draws with their folders, to 1 of 255 levels.
//! `goldens/round_trip.py FOLDER --write` makes the goldens again after their weights have changed.

use std::path::PathBuf;
use std::sync::Arc;

use easel_api::images::{SamplerKind, Task};
use easel_checkpoints::digest::Listing;
use easel_inference::pipeline::{Edit, Picture, PictureRequest, Pipeline, Way};
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::load_from;
use crate::golden::{self, Golden};
use crate::runs::run;

fn models() -> Vec<(String, Value)> {
    let text = std::fs::read(golden::folder().join("committed_models.json")).unwrap();
    let models: serde_json::Map<String, Value> = serde_json::from_slice(&text).unwrap();
    models.into_iter().collect()
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

/// Of `[height, width, rgb]` bytes.
fn picture(bytes: &Tensor) -> Picture {
    let size = format!("{}x{}", bytes.size()[1], bytes.size()[0]).parse().unwrap();
    Picture { size, rgb: Vec::try_from(bytes.flatten(0, -1)).unwrap() }
}

/// The request of `goldens/round_trip.py`.
fn request(model: &Value, wish: &Value, size: easel_api::ImageSize, from: Option<Picture>) -> PictureRequest {
    let number = |key: &str| model[key].as_f64().unwrap() as f32;
    let way = || Way::Instruct { image_guidance_scale: number("image_guidance_scale") };
    let edit = |picture| Edit { picture: Arc::new(picture), way: way() };
    PictureRequest {
        prompt: wish["prompt"].as_str().unwrap().to_owned(),
        negative_prompt: String::new(),
        seed: wish["seed"].as_u64().unwrap(),
        steps: model["steps"].as_u64().unwrap() as u32,
        guidance_scale: number("guidance_scale"),
        size,
        sampler: SamplerKind::Ddim,
        edit: from.map(edit),
        adapters: Vec::new(),
    }
}

#[test]
fn the_goldens_are_of_the_weights_that_are_committed() {
    for (name, model) in models() {
        let digest = Listing::read(&folder(&name)).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
        let mend = format!("models/{name} has changed: run goldens/round_trip.py models/{name} --write");
        assert_eq!(model["digest"], digest, "{mend}");
    }
}

#[test]
fn every_committed_model_has_a_golden() {
    let named: Vec<String> = models().into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().join("model_index.json").exists() {
            let name = entry.file_name().into_string().unwrap();
            assert!(named.contains(&name), "run goldens/round_trip.py models/{name} --write");
        }
    }
}

#[test]
fn committed_models_draw_as_diffusers_does_with_them() {
    for (name, model) in models() {
        let (golden, pipeline) = (Golden::open(&format!("committed_{name}")), load_from(&folder(&name)).unwrap());
        for (number, wish) in model["pictures"].as_array().unwrap().iter().enumerate() {
            let expected = picture(golden.get(&number.to_string()));
            let from = (pipeline.tasks() == [Task::Instruct]).then(|| picture(golden.get(&format!("{number}.from"))));
            let job = run(&pipeline, &request(&model, wish, expected.size, from));
            let found = pipeline.decode(&job).unwrap();
            let pairs = found.rgb.iter().zip(&expected.rgb);
            let worst = pairs.map(|(found, expected)| found.abs_diff(*expected)).max().unwrap();
            println!("{name}, {wish}: largest difference {worst}/255");
            assert!(worst <= 1 && found.size == expected.size, "{name}, {wish}: {worst}/255");
        }
    }
}
