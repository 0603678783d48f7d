//! Writes the manifest of a folder's files in the CNCF model-spec's form, one raw layer a file.
//! The same files give the same bytes on any machine: no times, no names of hosts, paths in byte order.

use serde::Serialize;

use super::{ARTIFACT_TYPE, CONFIG, DOC, File, MANIFEST, WEIGHT, WEIGHT_CONFIG};
use crate::digest::Digest;

/// What is pushed beside the files themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// A blob of its own.
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    /// Of the manifest: what an ImageModel pins.
    pub digest: Digest,
}

/// The order of `files` does not matter.
pub fn artifact(files: &[File]) -> Artifact {
    let mut files: Vec<&File> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let config = bytes(&Details {
        descriptor: Nothing {},
        config: Technical { format: "safetensors" },
        modelfs: ModelFs { kind: "layers", diff_ids: files.iter().map(|file| file.digest.to_string()).collect() },
    });
    let manifest = bytes(&Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        artifact_type: ARTIFACT_TYPE,
        config: Blob {
            media_type: CONFIG,
            digest: Digest::of(&config).to_string(),
            size: config.len() as u64,
            annotations: None,
        },
        layers: files.into_iter().map(layer).collect(),
    });
    let digest = Digest::of(&manifest);
    Artifact { config, manifest, digest }
}

fn layer(File { path, digest, size }: &File) -> Blob<'_> {
    let annotations = Some(Annotations { file_path: path, title: path });
    Blob { media_type: media_type(path), digest: digest.to_string(), size: *size, annotations }
}

/// The model-spec sorts files into weights, what is needed to use them, and what people read.
fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let for_people = ["README", "LICENSE", "NOTICE"].contains(&stem.to_ascii_uppercase().as_str());
    match extension {
        "safetensors" => WEIGHT,
        "json" | "txt" | "model" if !for_people => WEIGHT_CONFIG,
        _ => DOC,
    }
}

// Structs and not `serde_json::Value`: whose order of keys depends on a feature that any crate of a build may turn on.

#[derive(Serialize)]
struct Details {
    descriptor: Nothing,
    config: Technical,
    modelfs: ModelFs,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Technical {
    format: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'static str,
    config: Blob<'a>,
    layers: Vec<Blob<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations<'a>>,
}

#[derive(Serialize)]
struct Annotations<'a> {
    #[serde(rename = "org.cncf.model.filepath")]
    file_path: &'a str,
    #[serde(rename = "org.opencontainers.image.title")]
    title: &'a str,
}

fn bytes(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("names and numbers always serialise")
}
