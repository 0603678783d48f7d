//! Reads golden tensors and compares with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use easel_checkpoints::Files;
use easel_inference::torch::unet::UNetInputs;
use tch::{Kind, Tensor};

/// Largest difference allowed of any value in f32: libtorch's kernels add in another order on other CPUs.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// The checkpoints that goldens exist for.
pub(crate) const MODELS: [&str; 2] = ["sd1", "sd2"];

pub(crate) struct Golden {
    name: String,
    tensors: BTreeMap<String, Tensor>,
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

pub(crate) fn files(name: &str) -> Files<'static> {
    Files::trusted(&folder().join(name)).unwrap()
}

pub(crate) fn manifest() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder().join("manifest.json")).unwrap()).unwrap()
}

/// The prompts whose tokens and embeddings the goldens hold.
pub(crate) fn prompts() -> Vec<String> {
    serde_json::from_value(manifest()["prompts"].clone()).unwrap()
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let tensors = Tensor::read_safetensors(folder().join(format!("{name}.safetensors"))).unwrap();
        Self { name: name.to_owned(), tensors: tensors.into_iter().collect() }
    }

    pub(crate) fn get(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{} has no '{key}'", self.name))
    }

    /// What the golden's `UNet` was shown beside this text.
    pub(crate) fn unet_inputs<'a>(&'a self, text: &'a Tensor, added: Option<&'a Tensor>) -> UNetInputs<'a> {
        UNetInputs { sample: self.get("sample"), times: self.get("times"), text, added }
    }

    pub(crate) fn values(&self, key: &str) -> Vec<f64> {
        Vec::try_from(self.get(key).to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Fails the test if any value is further off than the tolerance.
    pub(crate) fn assert_close(&self, key: &str, found: &Tensor) {
        let checked = check(found, self.get(key), TOLERANCE);
        let difference = checked.unwrap_or_else(|error| panic!("{} {key}: {error}", self.name));
        println!("{:>12} {key:<24} max difference {difference:.1e}", self.name);
    }
}

/// The largest difference, or what is wrong.
pub(crate) fn check(found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<f64, String> {
    if found.size() != expected.size() {
        return Err(format!("shape {:?}, expected {:?}", found.size(), expected.size()));
    }
    let difference = max_difference(found, expected);
    // Written so that NaN fails.
    if difference <= tolerance {
        return Ok(difference);
    }
    Err(format!("max difference {difference:.3e} is above {tolerance:.0e}"))
}

pub(crate) fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[test]
fn a_golden_with_one_value_off_by_a_thousandth_fails() {
    let golden = Golden::open("sd1");
    let expected = golden.get("unet");
    let tampered = expected.copy();
    let _ = tampered.view([-1]).narrow(0, 100, 1).g_add_scalar_(1e-3);
    check(expected, expected, TOLERANCE).unwrap();
    let error = check(expected, &tampered, TOLERANCE).unwrap_err();
    assert!(error.starts_with("max difference 1.000e-3"), "{error}");
}

#[test]
fn nan_is_never_close() {
    let nan = Tensor::from_slice(&[f32::NAN]);
    assert!(check(&nan, &nan, TOLERANCE).is_err());
}

#[test]
fn the_goldens_are_those_that_the_manifest_describes() {
    for (name, tensors) in manifest()["tensors"].as_object().unwrap() {
        let golden = Golden::open(name);
        let listed: Vec<_> = tensors.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(golden.keys().collect::<Vec<_>>(), listed);
        for (key, row) in tensors.as_object().unwrap() {
            let values = golden.get(key).to_kind(Kind::Double);
            assert_eq!(serde_json::json!(values.size()), row["shape"], "{name} {key}");
            for (found, statistic) in [(values.mean(Kind::Double), "mean"), (values.std(false), "std")] {
                let expected = row[statistic].as_f64().unwrap();
                let off = (found.double_value(&[]) - expected).abs();
                assert!(off <= 1e-6, "{name} {key}: {statistic} is off by {off}");
            }
        }
    }
}
