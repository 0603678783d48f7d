//! Reads a checkpoint's uri: where the bytes are as the pod sees them, and what must be mounted for it.
//! Knows schemes and their form; does not know what a store asks for.

use easel_api::engine::Source;
use easel_crds::{Adapter, Checkpoint, ImageModel, Placement};

use super::WireError;

/// Where volume claims are mounted in Dedicated pods.
pub const CLAIMS: &str = "/checkpoints";
/// Where image volumes are mounted in Dedicated pods.
pub const IMAGES: &str = "/images";

/// A checkpoint's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub source: Source,
    /// What must be mounted for it.
    pub volume: Option<Volume>,
}

/// A volume with a checkpoint, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A PersistentVolumeClaim of the model's namespace.
    Claim(String),
    /// An image, mounted as a folder of [`IMAGES`] by this name.
    Image { name: String, reference: String },
}

/// Where the checkpoint in effect is.
pub fn place(model: &ImageModel) -> Result<Place, WireError> {
    let written = &model.spec.checkpoint;
    let uri = model.in_effect().map_or(written.uri.as_str(), |(uri, _)| uri);
    let name = model.metadata.name.as_deref().unwrap_or_default();
    let place = read(uri, written, name).ok_or_else(|| WireError::Uri(uri.chars().take(128).collect()))?;
    match (&place.volume, model.spec.placement) {
        (Some(Volume::Claim(_)), Placement::Shared) => Err(WireError::NeedsDedicated("pvc")),
        (Some(Volume::Image { .. }), Placement::Shared) => Err(WireError::NeedsDedicated("image")),
        (Some(_), Placement::Dedicated) | (None, Placement::Shared | Placement::Dedicated) => Ok(place),
    }
}

/// Where an adapter is. It can't be in a volume: pods would have to be made anew for it.
pub fn adapter_source(adapter: &Adapter) -> Result<Source, WireError> {
    let place = read(&adapter.uri, &adapter.checkpoint(), &adapter.name).filter(|place| place.volume.is_none());
    let refused = || WireError::Adapter(adapter.uri.chars().take(128).collect(), adapter.name.clone());
    place.map(|place| place.source).ok_or_else(refused)
}

/// `None`: of no form that is known.
fn read(uri: &str, written: &Checkpoint, name: &str) -> Option<Place> {
    let (scheme, rest) = uri.split_once("://")?;
    if rest.split('/').any(|folder| folder == "." || folder == "..") {
        return None;
    }
    let folder = |path: String| Source::Folder { path };
    match scheme {
        "file" => rest.starts_with('/').then(|| Place { source: folder(rest.to_owned()), volume: None }),
        "pvc" => {
            let (claim, inner) = rest.split_once('/').unwrap_or((rest, ""));
            let path = format!("{CLAIMS}/{claim}/{inner}").trim_end_matches('/').to_owned();
            (!claim.is_empty()).then(|| Place { source: folder(path), volume: Some(Volume::Claim(claim.to_owned())) })
        }
        "image" => {
            let volume = Volume::Image { name: name.to_owned(), reference: rest.to_owned() };
            repository(rest).map(|_| Place { source: folder(format!("{IMAGES}/{name}")), volume: Some(volume) })
        }
        "oci" => {
            let (registry, repository) = repository(rest)?;
            let plain_http = written.plain_http;
            let source = Source::Oci { registry: registry.to_owned(), repository: repository.to_owned(), plain_http };
            Some(Place { source, volume: None })
        }
        "s3" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let source = Source::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
                endpoint: written.endpoint.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
                region: written.region.clone(),
            };
            (!bucket.is_empty()).then_some(Place { source, volume: None })
        }
        _ => None,
    }
}

/// Registry and repository of `REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
fn repository(reference: &str) -> Option<(&str, &str)> {
    let named = reference.split_once('@').map_or(reference, |(named, _)| named);
    let (registry, path) = named.split_once('/')?;
    // Of a repository only the last part may have a tag; a registry's colon is its port's.
    let repository = path.split_once(':').map_or(path, |(repository, _)| repository);
    let whole = !registry.is_empty() && !repository.is_empty() && !repository.split('/').any(str::is_empty);
    whole.then_some((registry, repository))
}

/// The tag of an oci uri without a digest, as registries understand one that is left out.
pub fn tag(uri: &str) -> Option<(&str, &str, &str)> {
    let reference = uri.strip_prefix("oci://").filter(|reference| !reference.contains('@'))?;
    let (registry, repository) = repository(reference)?;
    let rest = &reference[registry.len() + 1 + repository.len()..];
    Some((registry, repository, rest.strip_prefix(':').filter(|tag| !tag.is_empty()).unwrap_or("latest")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{model, with};

    fn of(placement: &str, checkpoint: Value) -> Result<Place, WireError> {
        let mut checkpoint = checkpoint;
        checkpoint["digest"] = json!("d");
        place(&with(model("art", "m"), json!({"placement": placement, "checkpoint": checkpoint})))
    }

    fn folder(path: &str, volume: Option<Volume>) -> Place {
        Place { source: Source::Folder { path: path.into() }, volume }
    }

    fn oci(registry: &str, repository: &str, plain_http: bool) -> Place {
        let source = Source::Oci { registry: registry.into(), repository: repository.into(), plain_http };
        Place { source, volume: None }
    }

    fn s3(bucket: &str, prefix: &str, endpoint: Option<&str>, region: Option<&str>) -> Place {
        let (endpoint, region) = (endpoint.map(str::to_owned), region.map(str::to_owned));
        Place { source: Source::S3 { bucket: bucket.into(), prefix: prefix.into(), endpoint, region }, volume: None }
    }

    #[test]
    fn a_uri_becomes_the_place_that_the_pod_sees() {
        let claim = |name: &str| Some(Volume::Claim(name.into()));
        let image = |reference: &str| Some(Volume::Image { name: "m".into(), reference: reference.into() });
        for (uri, placement, expected) in [
            ("file:///models/emoji", "Shared", folder("/models/emoji", None)),
            ("file:///models/emoji", "Dedicated", folder("/models/emoji", None)),
            ("pvc://weights/sdxl/v1", "Dedicated", folder("/checkpoints/weights/sdxl/v1", claim("weights"))),
            ("pvc://weights", "Dedicated", folder("/checkpoints/weights", claim("weights"))),
            ("image://r.example/m@sha256:0", "Dedicated", folder("/images/m", image("r.example/m@sha256:0"))),
            ("oci://r.example:5000/team/m:v1@sha256:0", "Shared", oci("r.example:5000", "team/m", false)),
            ("oci://localhost/m", "Dedicated", oci("localhost", "m", false)),
            ("s3://bucket", "Shared", s3("bucket", "", None, None)),
            ("s3://bucket/a/b/", "Shared", s3("bucket", "a/b", None, None)),
        ] {
            assert_eq!(of(placement, json!({"uri": uri})), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn what_stands_beside_a_uri_goes_with_it() {
        let plain = of("Shared", json!({"uri": "oci://r:5000/m", "plainHttp": true}));
        assert_eq!(plain, Ok(oci("r:5000", "m", true)));
        let fields = json!({"uri": "s3://b/m", "endpoint": "http://s3.example:9000/", "region": "eu-central-1"});
        assert_eq!(of("Shared", fields), Ok(s3("b", "m", Some("http://s3.example:9000"), Some("eu-central-1"))));
    }

    #[test]
    fn what_leads_nowhere_or_out_is_refused() {
        for uri in [
            "models/x",
            "file://models/x",
            "pvc:///x",
            "pvc://claim/../other",
            "file:///models/../etc",
            "oci://r.example",
            "oci:///m",
            "oci://r.example/",
            "oci://r.example//m",
            "oci://r.example/a/../b",
            "s3:///x",
            "http://x/y",
            "image://r.example@sha256:0",
        ] {
            assert!(matches!(of("Dedicated", json!({"uri": uri})), Err(WireError::Uri(_))), "{uri}");
        }
        for (uri, scheme) in [("pvc://claim/x", "pvc"), ("image://r.example/m@sha256:0", "image")] {
            assert_eq!(of("Shared", json!({"uri": uri})), Err(WireError::NeedsDedicated(scheme)), "{uri}");
        }
    }

    #[test]
    fn a_tag_is_read_and_one_that_is_left_out_is_latest() {
        for (uri, expected) in [
            ("oci://r.example:5000/team/m:v1", Some(("r.example:5000", "team/m", "v1"))),
            ("oci://r.example/m", Some(("r.example", "m", "latest"))),
            ("oci://r.example/m@sha256:0", None),
            ("s3://b/m:v1", None),
        ] {
            assert_eq!(tag(uri), expected, "{uri}");
        }
    }
}
