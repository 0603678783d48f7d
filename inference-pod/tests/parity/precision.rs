//! Other dtypes: 16-bit checkpoints, and bf16 as the dtype to compute in.

use easel_api::images::SamplerKind;
use easel_inference::pipeline::{Loader, Pipeline};
use easel_inference::torch::{DeviceChoice, Dtype, Placement, TorchLoader};
use tch::Kind;

use crate::checkpoint::{self, Checkpoint, TEXT_ENCODER, UNET, VAE};
use crate::golden::{self, max_difference};
use crate::runs::{FLOW, request, run};

const FAMILIES: [(&str, SamplerKind); 5] = [
    ("sd1", SamplerKind::Ddim),
    ("sd2", SamplerKind::Ddim),
    ("sdxl", SamplerKind::Ddim),
    ("sd3", FLOW),
    ("flux", FLOW),
];

/// In standard deviations of the latents. bf16 keeps 8 bits of a number, and errors of 0.4 % add up over layers and
/// steps; 0.016 (Stable Diffusion 1) to 0.11 (FLUX, where diffusers is off by 1.0, for it rounds latents and times too)
/// were measured. A wrong cast or a forgotten norm is off by 1 or more.
pub(crate) const BF16_TOLERANCE: f64 = 0.2;

fn store_as(checkpoint: &Checkpoint, kind: Kind) {
    for file in [TEXT_ENCODER, UNET, VAE] {
        checkpoint.edit_weights(file, |tensors| {
            for (_, tensor) in tensors.iter_mut().filter(|(_, tensor)| tensor.is_floating_point()) {
                *tensor = tensor.to_kind(kind);
            }
        });
    }
}

#[test]
fn an_f16_checkpoint_computes_in_f32_with_the_values_that_it_has() {
    let half = Checkpoint::copy_of("sd2");
    store_as(&half, Kind::Half);
    let upcast = Checkpoint::copy_of("sd2");
    store_as(&upcast, Kind::Half);
    store_as(&upcast, Kind::Float);
    let [half, upcast] = [half, upcast].map(|checkpoint| checkpoint.load().unwrap());
    assert_eq!(half.memory_bytes(), upcast.memory_bytes());
    let request = request("sd2", SamplerKind::Ddim);
    assert_eq!(run(&half, &request).latents(), run(&upcast, &request).latents());
}

#[test]
fn bf16_on_a_cpu_draws_nearly_the_same() {
    let placement = Placement::choose(DeviceChoice::Cpu, Dtype::Bf16).unwrap();
    for (model, sampler) in FAMILIES {
        let whole = checkpoint::load(model);
        let brief = TorchLoader::new(placement).load(&golden::files(model)).unwrap();
        assert_eq!(brief.memory_bytes() * 2, whole.memory_bytes());
        let request = request(model, sampler);
        let (whole, brief) = (run(&whole, &request), run(&brief, &request));
        let spread = whole.latents().std(false).double_value(&[]);
        let difference = max_difference(whole.latents(), brief.latents()) / spread;
        println!("{model} bf16 against f32: max difference {difference:.1e} standard deviations");
        assert!(difference <= BF16_TOLERANCE);
    }
}
