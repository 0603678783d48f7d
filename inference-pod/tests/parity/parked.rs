//! A checkpoint that was in the host's memory draws as if it had never left.

use easel_api::images::SamplerKind;
use easel_inference::pipeline::{Loader, Pipeline};
use easel_inference::torch::{Diffusion, Placement, TorchLoader};

use crate::checkpoint;
use crate::golden;
use crate::runs::{FLOW, request, run};

#[test]
fn a_checkpoint_that_was_parked_or_loaded_parked_draws_the_same() {
    for (model, sampler) in [("sd1", SamplerKind::Ddim), ("sdxl", SamplerKind::Ddim), ("sd3", FLOW), ("flux", FLOW)] {
        let pipeline = checkpoint::load(model);
        let (bytes, request) = (pipeline.memory_bytes(), request(model, sampler));
        let before = run(&pipeline, &request);
        let parked = pipeline.park().unwrap();
        assert_eq!(Diffusion::parked_bytes(&parked), bytes);
        let loaded = TorchLoader::new(Placement::REFERENCE).load_parked(&golden::files(model)).unwrap();
        for parked in [parked, loaded] {
            let after = run(&Diffusion::wake(parked).unwrap(), &request);
            assert_eq!(before.latents(), after.latents(), "{model}");
        }
    }
}

#[test]
fn a_cpu_has_no_host_tier_for_its_memory_is_the_hosts() {
    assert!(!TorchLoader::new(Placement::REFERENCE).has_host_tier());
}
