//! What an ImageModel is in the engine protocol: where its checkpoint lies, its defaults and its limits.
//! Parses once, at the edge; refuses with a sentence what a pod could only refuse later.

mod place;

use easel_api::engine::{self, Access, DesiredAdapter, DesiredModel, ModelDefaults, ModelLimits, Tier};
use easel_api::images::SamplerKind;
use easel_api::{ImageSize, SizeError};
use easel_crds::planner::Invalid;
use easel_crds::{Adapter, Defaults, ImageModel, Limits, Sampler};
use easel_planner::ModelId;

pub use place::{CLAIMS, IMAGES, Place, Volume, adapter_source, place, tag};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("spec.defaults.size: {0}")]
    Size(#[from] SizeError),
    #[error(
        "spec.checkpoint.uri: '{0}' leads nowhere; write oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], \
         s3://BUCKET/PREFIX, file:///FOLDER (in the inference image), pvc://CLAIM/FOLDER or \
         image://REGISTRY/REPOSITORY@sha256:DIGEST"
    )]
    Uri(String),
    #[error("spec.checkpoint.uri: a {0}:// checkpoint needs placement: Dedicated")]
    NeedsDedicated(&'static str),
    #[error(
        "spec.checkpoint has no digest; write it (in digest, or as @sha256:… in an oci uri), or say resolveTag: true"
    )]
    Unpinned,
    #[error(
        "spec.adapters: '{0}' of '{1}' leads nowhere; write oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], \
         s3://BUCKET/PREFIX or file:///FOLDER (in the inference image)"
    )]
    Adapter(String, String),
    #[error("spec.adapters: '{0}' has no digest; write it (in digest, or as @sha256:… in an oci uri)")]
    UnpinnedAdapter(String),
}

/// What does not depend on a store: refuses what is wrong with the model by itself.
pub fn check(model: &ImageModel) -> Result<(), WireError> {
    place(model)?;
    if model.digest().is_none() && !model.spec.checkpoint.resolve_tag {
        return Err(WireError::Unpinned);
    }
    for adapter in &model.spec.adapters {
        adapter_source(adapter)?;
        if adapter.checkpoint().pinned().is_none() {
            return Err(WireError::UnpinnedAdapter(adapter.name.clone()));
        }
    }
    defaults(&model.spec.defaults).map(drop)
}

/// What a pod is told to hold. `None` as long as its tag was never resolved: there is nothing to tell yet.
pub fn desired(
    id: &ModelId,
    model: &ImageModel,
    access: Option<&Access>,
    adapter_access: impl Fn(&str) -> Option<Access>,
) -> Result<Option<DesiredModel>, WireError> {
    let source = place(model)?.source;
    let Some((uri, digest)) = model.in_effect() else { return Ok(None) };
    // A signature belongs to the digest that stands beside it.
    let current = uri == model.spec.checkpoint.uri;
    let signature = model.spec.checkpoint.signature.clone().filter(|_| current);
    Ok(Some(DesiredModel {
        id: engine_id(id),
        checkpoint: engine::Checkpoint { source, digest: digest.to_owned(), signature },
        access: access.cloned(),
        defaults: defaults(&model.spec.defaults)?,
        limits: limits(&model.spec.limits),
        // What the plan holds in turns is told another tier by who knows the replica.
        tier: Tier::Device,
        adapters: adapters(model, adapter_access)?,
    }))
}

/// A pod is told of an adapter whose Secret is missing too: what its store says then stands in the pod's report.
fn adapters(model: &ImageModel, access: impl Fn(&str) -> Option<Access>) -> Result<Vec<DesiredAdapter>, WireError> {
    let desired = |adapter: &Adapter| {
        let written = adapter.checkpoint();
        let digest = written.pinned().ok_or_else(|| WireError::UnpinnedAdapter(adapter.name.clone()))?.to_owned();
        let checkpoint =
            engine::Checkpoint { source: adapter_source(adapter)?, digest, signature: written.signature.clone() };
        Ok(DesiredAdapter { name: adapter.name.clone(), checkpoint, access: access(&adapter.name) })
    };
    model.spec.adapters.iter().map(desired).collect()
}

pub fn engine_id(id: &ModelId) -> engine::ModelId {
    engine::ModelId(id.as_str().to_owned())
}

pub fn defaults(defaults: &Defaults) -> Result<ModelDefaults, WireError> {
    let Defaults { steps, guidance_scale, size, sampler } = defaults;
    Ok(ModelDefaults {
        steps: *steps,
        guidance_scale: *guidance_scale as f32, // 0 to 50: nothing is lost that a picture shows
        size: size.parse::<ImageSize>()?,
        sampler: sampler_kind(*sampler),
    })
}

fn sampler_kind(sampler: Sampler) -> SamplerKind {
    match sampler {
        Sampler::Ddim => SamplerKind::Ddim,
        Sampler::Ddpm => SamplerKind::Ddpm,
        Sampler::Euler => SamplerKind::Euler,
        Sampler::EulerAncestral => SamplerKind::EulerAncestral,
        Sampler::Heun => SamplerKind::Heun,
        Sampler::Dpmpp2m => SamplerKind::Dpmpp2m,
        Sampler::Dpmpp2mKarras => SamplerKind::Dpmpp2mKarras,
        Sampler::Dpmpp2mSde => SamplerKind::Dpmpp2mSde,
        Sampler::UniPc => SamplerKind::UniPc,
        Sampler::Lcm => SamplerKind::Lcm,
        Sampler::FlowMatchEuler => SamplerKind::FlowMatchEuler,
    }
}

pub fn limits(limits: &Limits) -> ModelLimits {
    let Limits { max_steps, max_pixels, max_images } = limits;
    ModelLimits { max_steps: *max_steps, max_pixels: u64::from(*max_pixels), max_images: *max_images }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{DIGEST, model, resolved, with};

    fn told(model: &ImageModel) -> Option<(String, String)> {
        let desired = desired(&ModelId::new("art/m"), model, None, |_| None).unwrap()?;
        Some((desired.checkpoint.source.to_string(), desired.checkpoint.digest))
    }

    #[test]
    fn defaults_and_limits_go_over_and_a_bad_size_is_refused() {
        let id = ModelId::new("art/m");
        let written = with(model("art", "m"), json!({"defaults": {"size": "64x96", "sampler": "Euler", "steps": 8}}));
        let wire = desired(&id, &written, None, |_| None).unwrap().unwrap();
        assert_eq!((wire.defaults.steps, wire.defaults.sampler), (8, SamplerKind::Euler));
        assert_eq!(wire.defaults.size, "64x96".parse().unwrap());
        assert_eq!(wire.limits.max_pixels, 1024 * 1024);
        let bad = with(model("art", "m"), json!({"defaults": {"size": "63x64"}}));
        assert!(matches!(desired(&id, &bad, None, |_| None), Err(WireError::Size(_))));
        assert!(matches!(check(&bad), Err(WireError::Size(_))));
    }

    #[test]
    fn every_sampler_that_a_pod_knows_can_be_a_default_and_costs_the_same_to_both() {
        let names = [
            "DDIM",
            "DDPM",
            "Euler",
            "EulerAncestral",
            "Heun",
            "DPMPP2M",
            "DPMPP2MKarras",
            "DPMPP2MSDE",
            "UniPC",
            "LCM",
            "FlowMatchEuler",
        ];
        for (name, kind) in names.into_iter().zip(SamplerKind::ALL) {
            let written = with(model("art", "m"), json!({"defaults": {"sampler": name, "steps": 20}}));
            let wire = defaults(&written.spec.defaults).unwrap();
            assert_eq!(wire.sampler, kind);
            assert_eq!(easel_crds::planner::model_calls(&written.spec.defaults), kind.model_calls(20), "{name}");
        }
        assert_eq!(names.len(), SamplerKind::ALL.len());
    }

    #[test]
    fn a_tag_is_told_once_it_is_resolved_and_the_former_checkpoint_until_then() {
        let tagged = |tag: &str| json!({"checkpoint": {"uri": format!("oci://r.example/m:{tag}"), "resolveTag": true}});
        let new = with(model("art", "m"), tagged("v1"));
        assert_eq!((told(&new), check(&new)), (None, Ok(())));
        let pinned = resolved(new, "oci://r.example/m:v1", DIGEST);
        assert_eq!(told(&pinned), Some(("oci://r.example/m".into(), DIGEST.into())));
        let next = with(resolved(model("art", "m"), "file:///models/emoji", DIGEST), tagged("v2"));
        assert_eq!(told(&next), Some(("/models/emoji".into(), DIGEST.into())));
    }

    #[test]
    fn adapters_go_over_with_their_credentials_and_what_is_wrong_with_one_is_said() {
        let of = |adapter: serde_json::Value| with(model("art", "m"), json!({"adapters": [adapter]}));
        let written = of(json!({"name": "ink", "uri": format!("oci://r.example/ink:v1@{DIGEST}"), "plainHttp": true}));
        let access = Access::Authority { ca: "PEM".into() };
        let told =
            desired(&ModelId::new("art/m"), &written, None, |name| Some(access.clone()).filter(|_| name == "ink"));
        let told = told.unwrap().unwrap().adapters;
        let source = engine::Source::Oci { registry: "r.example".into(), repository: "ink".into(), plain_http: true };
        let checkpoint = engine::Checkpoint { source, digest: DIGEST.into(), signature: None };
        assert_eq!(told, [DesiredAdapter { name: "ink".into(), checkpoint, access: Some(access) }]);
        assert_eq!(check(&written), Ok(()));
        for (uri, digest, refused) in [
            ("oci://r.example/ink", None, WireError::UnpinnedAdapter("ink".into())),
            ("pvc://claim/ink", Some(DIGEST), WireError::Adapter("pvc://claim/ink".into(), "ink".into())),
            ("http://x/ink", Some(DIGEST), WireError::Adapter("http://x/ink".into(), "ink".into())),
        ] {
            assert_eq!(check(&of(json!({"name": "ink", "uri": uri, "digest": digest}))), Err(refused));
        }
    }

    #[test]
    fn a_checkpoint_without_a_digest_is_refused_by_itself() {
        let loose = with(model("art", "m"), json!({"checkpoint": {"uri": "s3://bucket/m"}}));
        assert_eq!(check(&loose), Err(WireError::Unpinned));
    }
}
