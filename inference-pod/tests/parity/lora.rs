//! Adapters against what diffusers draws with them, side by side in a batch, and those that are refused.

use easel_api::images::SamplerKind;
use easel_checkpoints::Files;
use easel_inference::pipeline::{LoadError, Loader, PictureRequest, Pipeline, WornAdapter};
use easel_inference::torch::diffusion::Job;
use easel_inference::torch::lora::Adapter;
use easel_inference::torch::{Diffusion, Placement, TorchLoader};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::checkpoint::{self, Checkpoint};
use crate::golden::{self, Golden, max_difference};
use crate::runs::{FLOW, assert_picture, request, run};

const FILE: &str = "pytorch_lora_weights.safetensors";

type Tensors = Vec<(String, Tensor)>;
type Rename<'a> = &'a dyn Fn(&str) -> String;
type Spoil<'a> = &'a dyn Fn(&mut Tensors);

fn load(pipeline: &Diffusion, folder: &std::path::Path) -> Result<Adapter, LoadError> {
    TorchLoader::new(Placement::REFERENCE).load_adapter(&Files::trusted(folder).unwrap(), &pipeline.layers())
}

/// A pipeline that holds the golden adapters of these names, by their names.
fn with_adapters(model: &str, adapters: &[&str]) -> Diffusion {
    let mut pipeline = checkpoint::load(model);
    for name in adapters {
        let adapter = load(&pipeline, &golden::folder().join("lora").join(format!("{model}-{name}"))).unwrap();
        pipeline.hold_adapter(name, adapter);
    }
    pipeline
}

fn wearing(adapters: &[(&str, f32)], request: PictureRequest) -> PictureRequest {
    let worn = |(name, weight): &(&str, f32)| WornAdapter {
        name: (*name).to_owned(),
        digest: (*name).to_owned(),
        weight: *weight,
    };
    PictureRequest { adapters: adapters.iter().map(worn).collect(), ..request }
}

fn wish(model: &str) -> PictureRequest {
    match model {
        "sd3" => request(model, FLOW),
        "flux" => PictureRequest { guidance_scale: 3.5, ..request(model, FLOW) },
        _ => request(model, SamplerKind::Ddim),
    }
}

#[test]
fn latents_with_adapters_are_those_of_diffusers_after_every_step_and_so_is_the_picture() {
    let golden = Golden::open("lora");
    for (model, run, adapters) in [
        ("sd1", "one", &[("ink", 0.8)][..]),
        ("sd1", "kohya", &[("wax", 1.0)]),
        ("sd1", "two", &[("ink", 0.8), ("wax", -0.5)]),
        ("sdxl", "one", &[("wax", 0.5)]),
        ("sd3", "one", &[("ink", 0.5)]),
        ("flux", "one", &[("ink", 0.5)]),
    ] {
        let names: Vec<_> = adapters.iter().map(|(name, _)| *name).collect();
        let pipeline = with_adapters(model, &names);
        let mut job = pipeline.encode(&wearing(adapters, wish(model))).unwrap();
        for step in 0..4 {
            pipeline.denoise_step(&mut [&mut job]).unwrap();
            golden.assert_close(&format!("{model}.{run}.latents.{step}"), job.latents());
        }
        assert_picture(&pipeline.decode(&job).unwrap(), golden.get(&format!("{model}.{run}.image")));
        let bare = crate::runs::run(&pipeline, &wish(model));
        assert!(max_difference(bare.latents(), job.latents()) > 0.1, "{model} {run} changes nothing");
    }
}

fn drawn_together(pipeline: &Diffusion, requests: &[PictureRequest]) -> Vec<Job> {
    let mut batch: Vec<Job> = requests.iter().map(|request| pipeline.encode(request).unwrap()).collect();
    while batch.iter().any(|job| !job.is_finished()) {
        pipeline.denoise_step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
    }
    batch
}

#[test]
fn requests_of_different_adapters_in_one_step_end_as_each_does_alone() {
    let pipeline = with_adapters("sd1", &["ink", "wax"]);
    let seeded = |seed| PictureRequest { seed, ..wish("sd1") };
    let requests = [
        wearing(&[("ink", 0.8)], seeded(1)),
        seeded(2),
        wearing(&[("wax", 1.0)], seeded(3)),
        wearing(&[("wax", 1.0), ("ink", -0.3)], seeded(4)),
        wearing(&[("ink", 0.8)], seeded(5)),
    ];
    for (request, together) in requests.iter().zip(drawn_together(&pipeline, &requests)) {
        let alone = run(&pipeline, request);
        let difference = max_difference(together.latents(), alone.latents());
        println!("batch against single: max difference {difference:.1e}");
        assert!(difference <= 1e-5, "{difference:.1e}");
    }
}

#[test]
fn a_row_without_adapters_is_bit_equal_beside_one_with_and_base_weights_stay() {
    for (model, adapter) in [("sd1", "ink"), ("sdxl", "wax"), ("sd3", "ink")] {
        let pipeline = with_adapters(model, &[adapter]);
        let bare = wish(model);
        let neighbour = PictureRequest { seed: 9, ..wish(model) };
        let worn = wearing(&[(adapter, 1.0)], neighbour.clone());
        let before = drawn_together(&pipeline, &[bare.clone(), neighbour.clone()]);
        let beside = drawn_together(&pipeline, &[bare.clone(), worn]);
        let after = drawn_together(&pipeline, &[bare, neighbour]);
        assert!(beside[0].latents().equal(before[0].latents()), "{model}: the row without adapters has changed");
        assert!(!beside[1].latents().equal(before[1].latents()), "{model}");
        let same = (0..2).all(|row| after[row].latents().equal(before[row].latents()));
        assert!(same, "{model}: the base weights have changed");
    }
}

#[test]
fn an_adapter_that_was_dropped_fails_its_request_alone_and_by_name() {
    let mut pipeline = with_adapters("sd1", &["ink"]);
    pipeline.drop_adapter("ink");
    let error = pipeline.encode(&wearing(&[("ink", 1.0)], wish("sd1"))).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("'ink'"));
    run(&pipeline, &wish("sd1"));
}

/// A copy of a golden adapter that a test may spoil.
fn spoilt(name: &str, edit: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut tensors = Tensor::read_safetensors(golden::folder().join("lora").join(name).join(FILE)).unwrap();
    edit(&mut tensors);
    Tensor::write_safetensors(&tensors, folder.path().join(FILE)).unwrap();
    folder
}

fn renamed(name: &str, rename: impl Fn(&str) -> String) -> TempDir {
    spoilt(name, |tensors| tensors.iter_mut().for_each(|(key, _)| *key = rename(key)))
}

#[test]
fn every_layout_of_one_adapter_draws_the_same() {
    let mut pipeline = with_adapters("sd1", &["ink"]);
    let expected = run(&pipeline, &wearing(&[("ink", 0.8)], wish("sd1")));
    let of_2023 = |key: &str| key.replace("lora_A.", "lora.down.").replace("lora_B.", "lora.up.");
    let processors = |key: &str| {
        let key = key.replace(".attn1.to_", ".attn1.processor.to_").replace(".attn2.to_", ".attn2.processor.to_");
        let key = if key.contains(".processor.") {
            key.replace("to_out.0", "to_out").replace(".lora_", "_lora_")
        } else {
            key
        };
        let key = key.replace("self_attn.q_proj.lora_", "self_attn.to_q_lora_");
        let key = key.replace("_lora_A.", "_lora.down.").replace("_lora_B.", "_lora.up.");
        if key.contains(".mlp.") {
            key.replace("lora_A.", "lora_linear_layer.down.").replace("lora_B.", "lora_linear_layer.up.")
        } else {
            key
        }
    };
    let kohya = |key: &str| {
        let (layer, end) = key.split_once(".lora_").unwrap();
        let layer = match layer.strip_prefix("unet.") {
            Some(layer) => format!("lora_unet_{layer}"),
            None => layer.replace("text_encoder.", "lora_te_"),
        };
        let end = if end == "A.weight" { "lora_down.weight" } else { "lora_up.weight" };
        format!("{}.{end}", layer.replace('.', "_"))
    };
    let without_prefix = |key: &str| key.replace("text_model.", "");
    let layouts: [(&str, Rename); 4] =
        [("2023", &of_2023), ("processors", &processors), ("kohya", &kohya), ("transformers 5", &without_prefix)];
    for (name, rename) in layouts {
        let folder = renamed("sd1-ink", rename);
        let adapter = load(&pipeline, folder.path()).unwrap();
        pipeline.hold_adapter(name, adapter);
        let found = run(&pipeline, &wearing(&[(name, 0.8)], wish("sd1")));
        assert!(found.latents().equal(expected.latents()), "{name}");
    }
}

#[test]
fn bytes_are_those_of_the_tensors_and_the_weight_of_alpha_and_rank_together_counts() {
    let mut pipeline = with_adapters("sd1", &["ink"]);
    let tensors = Tensor::read_safetensors(golden::folder().join("lora/sd1-ink").join(FILE)).unwrap();
    let numbers: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    let layers = pipeline.layers();
    let files = Files::trusted(&golden::folder().join("lora/sd1-ink")).unwrap();
    let adapter = Adapter::load(&files, &layers, Placement::REFERENCE).unwrap();
    assert_eq!((adapter.bytes(), adapter.len()), (4 * numbers as u64, tensors.len() / 2));
    // Half of the rank as alpha, at twice the weight.
    let folder = spoilt("sd1-ink", |tensors| {
        let layers: Vec<_> = tensors.iter().filter_map(|(key, _)| key.strip_suffix(".lora_A.weight")).collect();
        let alphas: Vec<_> = layers.iter().map(|layer| (format!("{layer}.alpha"), Tensor::from(1.0_f32))).collect();
        tensors.extend(alphas);
    });
    let halved = load(&pipeline, folder.path()).unwrap();
    pipeline.hold_adapter("halved", halved);
    let whole = run(&pipeline, &wearing(&[("ink", 0.5)], wish("sd1")));
    let halved = run(&pipeline, &wearing(&[("halved", 1.0)], wish("sd1")));
    assert!(max_difference(whole.latents(), halved.latents()) < 1e-5);
}

#[test]
fn files_that_do_not_fit_the_model_or_are_of_another_kind_are_refused_by_name() {
    let pipeline = checkpoint::load("sd1");
    let first = "unet.conv_out.lora_A.weight";
    let at = |tensors: &[(String, Tensor)]| tensors.iter().position(|(key, _)| key == first).unwrap();
    let with = |key: &str, tensors: &mut Tensors| tensors.push((key.into(), Tensor::from(1.0_f32)));
    let change = |tensors: &mut Tensors, to: Tensor| {
        let first = at(tensors);
        tensors[first].1 = to;
    };
    let of = |shape: [i64; 4], value: f64| Tensor::full(shape, value, (Kind::Float, tch::Device::Cpu));
    let cases: [(Spoil, &[&str]); 8] = [
        (&|tensors| with("unet.conv_out.lora_C.weight", tensors), &["unet.conv_out.lora_C"]),
        (&|tensors| with("unet.conv_out.lora_magnitude_vector", tensors), &["DoRA"]),
        (&|tensors| with("lora_unet_conv_out.lora_down.weight", tensors), &["same layer"]),
        (&|tensors| with("unet.conv_gone.lora_A.weight", tensors), &["conv_gone", "does not have"]),
        (&|tensors| drop(tensors.remove(at(tensors))), &["unet.conv_out", "lora_A"]),
        (&|tensors| change(tensors, of([2, 7, 3, 3], 0.0)), &[first, "[2, 7, 3, 3]", "[2, 16, 3, 3]"]),
        (&|tensors| change(tensors, of([2, 16, 3, 3], f64::NAN)), &["unet.conv_out", "not numbers"]),
        (&Vec::clear, &["changes no layer"]),
    ];
    for (spoil, words) in cases {
        let folder = spoilt("sd1-ink", |tensors| spoil(tensors));
        let error = load(&pipeline, folder.path()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}");
        assert!(words.iter().all(|word| text.contains(word)), "{text} has not all of {words:?}");
    }
}

#[test]
fn an_adapter_of_another_family_or_without_its_one_file_is_refused() {
    let refusal =
        |model: &str, folder: &std::path::Path| load(&checkpoint::load(model), folder).unwrap_err().to_string();
    let of_sdxl = golden::folder().join("lora/sdxl-wax");
    assert!(refusal("sd1", &of_sdxl).contains("does not have"));
    let two = spoilt("sd1-ink", |_| {});
    std::fs::copy(two.path().join(FILE), two.path().join("again.safetensors")).unwrap();
    assert!(refusal("sd1", two.path()).contains("2 safetensors files"));
    assert!(refusal("sd1", TempDir::new().unwrap().path()).contains("0 safetensors files"));
}

#[test]
fn a_file_that_is_cut_off_is_refused_with_its_length() {
    let folder = spoilt("sd1-ink", |_| {});
    let path = folder.path().join(FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let error = load(&checkpoint::load("sd1"), folder.path()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("truncated"));
}

/// Editing models have the same layers with eight channels of latents.
#[test]
fn an_adapter_is_refused_where_one_layer_has_another_shape() {
    let folder = renamed("sd1-ink", |key| key.replace("conv_out", "conv_in"));
    let error = load(&checkpoint::load("sd1"), folder.path()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("unet.conv_in.lora_A.weight"));
    let checkpoint = Checkpoint::copy_of("sd1");
    let found = load(&checkpoint.load().unwrap(), &golden::folder().join("lora/sd1-ink")).unwrap();
    assert!(!found.is_empty());
}
