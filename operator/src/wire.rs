//! What an ImageModel is in the engine protocol: where its checkpoint lies in the pod, its defaults and its limits.
//! Parses once, at the edge; refuses with a sentence what a pod could only refuse later.

use easel_api::engine::{self, DesiredModel, ModelDefaults, ModelLimits};
use easel_api::images::SamplerKind;
use easel_api::{ImageSize, SizeError};
use easel_crds::planner::Invalid;
use easel_crds::{Defaults, ImageModel, Limits, Placement, Sampler};
use easel_planner::ModelId;

/// Where volume claims are mounted in Dedicated pods.
pub const CLAIMS: &str = "/checkpoints";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("spec.defaults.size: {0}")]
    Size(#[from] SizeError),
    #[error("spec.checkpoint.uri: '{0}' is neither file:///FOLDER (in the inference image) nor pvc://CLAIM/FOLDER")]
    Uri(String),
    #[error("spec.checkpoint.uri: a pvc:// checkpoint needs placement: Dedicated")]
    ClaimOfShared,
}

/// A checkpoint's place, as the pod sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: String,
    /// The PersistentVolumeClaim that must be mounted for it.
    pub claim: Option<String>,
}

/// Reads the URI.
pub fn place(model: &ImageModel) -> Result<Place, WireError> {
    let uri = &model.spec.checkpoint.uri;
    let refused = || WireError::Uri(uri.chars().take(128).collect());
    if uri.split('/').any(|folder| folder == "." || folder == "..") {
        return Err(refused());
    }
    if let Some(path) = uri.strip_prefix("file://") {
        return if path.starts_with('/') { Ok(Place { path: path.to_owned(), claim: None }) } else { Err(refused()) };
    }
    let rest = uri.strip_prefix("pvc://").ok_or_else(refused)?;
    let (claim, folder) = rest.split_once('/').unwrap_or((rest, ""));
    if claim.is_empty() {
        return Err(refused());
    }
    match model.spec.placement {
        Placement::Shared => Err(WireError::ClaimOfShared),
        Placement::Dedicated => {
            let path = format!("{CLAIMS}/{claim}/{folder}");
            Ok(Place { path: path.trim_end_matches('/').to_owned(), claim: Some(claim.to_owned()) })
        }
    }
}

/// What a pod is told to hold.
pub fn desired(id: &ModelId, model: &ImageModel) -> Result<DesiredModel, WireError> {
    let checkpoint = engine::Checkpoint { path: place(model)?.path, digest: model.spec.checkpoint.digest.clone() };
    Ok(DesiredModel {
        id: engine_id(id),
        checkpoint,
        defaults: defaults(&model.spec.defaults)?,
        limits: limits(&model.spec.limits),
    })
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
        sampler: match sampler {
            Sampler::Ddim => SamplerKind::Ddim,
            Sampler::Euler => SamplerKind::Euler,
        },
    })
}

pub fn limits(limits: &Limits) -> ModelLimits {
    let Limits { max_steps, max_pixels, max_images } = limits;
    ModelLimits { max_steps: *max_steps, max_pixels: u64::from(*max_pixels), max_images: *max_images }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{model, with};
    use serde_json::json;

    #[test]
    fn a_uri_becomes_the_folder_that_the_pod_sees() {
        for (uri, placement, path, claim) in [
            ("file:///models/emoji", "Shared", "/models/emoji", None),
            ("file:///models/emoji", "Dedicated", "/models/emoji", None),
            ("pvc://weights/sdxl/v1", "Dedicated", "/checkpoints/weights/sdxl/v1", Some("weights")),
            ("pvc://weights", "Dedicated", "/checkpoints/weights", Some("weights")),
        ] {
            let model =
                with(model("art", "m"), json!({"placement": placement, "checkpoint": {"uri": uri, "digest": "d"}}));
            let expected = Place { path: path.into(), claim: claim.map(str::to_owned) };
            assert_eq!(place(&model), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn what_leads_nowhere_or_out_is_refused() {
        for (uri, placement) in [
            ("oci://registry/x", "Dedicated"),
            ("file://models/x", "Shared"),
            ("pvc:///x", "Dedicated"),
            ("pvc://claim/../other", "Dedicated"),
            ("file:///models/../etc", "Shared"),
            ("pvc://claim/x", "Shared"),
        ] {
            let model =
                with(model("art", "m"), json!({"placement": placement, "checkpoint": {"uri": uri, "digest": "d"}}));
            assert!(place(&model).is_err(), "{uri}");
        }
    }

    #[test]
    fn defaults_and_limits_go_over_and_a_bad_size_is_refused() {
        let id = ModelId::new("art/m");
        let written = with(model("art", "m"), json!({"defaults": {"size": "64x96", "sampler": "Euler", "steps": 8}}));
        let wire = desired(&id, &written).unwrap();
        assert_eq!((wire.defaults.steps, wire.defaults.sampler), (8, SamplerKind::Euler));
        assert_eq!(wire.defaults.size, "64x96".parse().unwrap());
        assert_eq!(wire.limits.max_pixels, 1024 * 1024);
        let bad = with(model("art", "m"), json!({"defaults": {"size": "63x64"}}));
        assert!(matches!(desired(&id, &bad), Err(WireError::Size(_))));
    }
}
