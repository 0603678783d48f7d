use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn file(path: &str, bytes: &[u8]) -> File {
    File { path: path.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn layer(path: &str) -> Value {
    json!({ "mediaType": "application/octet-stream", "digest": EMPTY, "size": 0, "annotations": { TITLE: path } })
}

fn manifest(layers: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "layers": layers }).to_string().into_bytes()
}

/// The digest is written out: it must not change with a version of this crate or of `serde_json`, or the same folder
/// would be pushed under two digests.
#[test]
fn the_same_files_have_the_same_manifest_wherever_they_are_pushed() {
    let files = [file("unet/model.safetensors", b"weights"), file("model_index.json", b"{}"), file("README.md", b"hi")];
    let Artifact { config, manifest, digest } = artifact(&files);
    assert_eq!(digest, Digest::of(&manifest));
    assert_eq!(digest.to_string(), "sha256:cf098b923aef2e5e5f604d926c7f26126691b82a569fb82e9680ee32bef3a058");
    let [a, b, c] = files;
    assert_eq!(artifact(&[c, a, b]).manifest, manifest);
    assert!(String::from_utf8(config).unwrap().starts_with(r#"{"descriptor":{},"config":{"format":"safetensors"}"#));
}

#[test]
fn a_manifest_says_what_each_file_is_to_the_model_spec() {
    let paths =
        ["a.safetensors", "merges.txt", "config.json", "spiece.model", "README.md", "README.txt", "LICENSE", "a.png"];
    let written = artifact(&paths.map(|path| file(path, b"")));
    let manifest: Value = serde_json::from_slice(&written.manifest).unwrap();
    let kind = |path: &str| {
        let layers = manifest["layers"].as_array().unwrap();
        let layer = layers.iter().find(|layer| layer["annotations"][FILE_PATH] == path).unwrap();
        assert_eq!(layer["annotations"][TITLE], path);
        layer["mediaType"].as_str().unwrap().to_owned()
    };
    assert_eq!(paths.map(kind), [WEIGHT, WEIGHT_CONFIG, WEIGHT_CONFIG, WEIGHT_CONFIG, DOC, DOC, DOC, DOC]);
    assert_eq!(manifest["artifactType"], ARTIFACT_TYPE);
    assert_eq!(manifest["config"]["digest"], Digest::of(&written.config).to_string());
}

/// As `oras push localhost/x model_index.json unet/model.safetensors:application/x` writes it.
#[test]
fn plain_layers_of_oras_are_read() {
    let bytes = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2, "data": "e30=" },
        "layers": [
            { "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": EMPTY, "size": 3,
              "annotations": { TITLE: "model_index.json" } },
            { "mediaType": "application/x", "digest": EMPTY, "size": 4,
              "annotations": { TITLE: "unet/model.safetensors" } },
        ],
        "annotations": { "org.opencontainers.image.created": "2026-11-23T19:00:00Z" },
    });
    let read = files(bytes.to_string().as_bytes()).unwrap();
    let expected = [("model_index.json", 3), ("unet/model.safetensors", 4)];
    assert_eq!(read, expected.map(|(path, size)| File { path: path.into(), digest: EMPTY.parse().unwrap(), size }));
}

#[test]
fn a_path_that_leaves_the_folder_is_refused_by_name() {
    for (path, why) in [
        ("", PathError::Empty),
        ("/etc/passwd", PathError::Absolute),
        ("../x", PathError::Climbs),
        ("a/../../x", PathError::Climbs),
        ("./x", PathError::Climbs),
        ("a//x", PathError::Climbs),
        ("a/", PathError::Climbs),
        ("..", PathError::Climbs),
        ("a\\..\\x", PathError::Backslash),
        ("a\nb", PathError::Control),
        ("a\0b", PathError::Control),
    ] {
        let refused = files(&manifest(&[layer("ok"), layer(path)])).unwrap_err();
        assert_eq!(refused, ArtifactError::Path { index: 1, path: path.into(), why });
    }
    let long = "x".repeat(300);
    assert!(matches!(files(&manifest(&[layer(&long)])), Err(ArtifactError::Path { why: PathError::TooLong, .. })));
}

#[test]
fn a_manifest_that_is_no_checkpoint_is_refused_with_a_remedy() {
    let with = |key: &str, value: Value| {
        let mut layer = layer("a");
        layer[key] = value;
        manifest(&[layer])
    };
    let annotated = |annotations: Value| with("annotations", annotations);
    let tar = |media_type: &str| with("mediaType", media_type.into());
    let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes();
    let old = json!({ "schemaVersion": 1, "layers": [layer("a")] }).to_string().into_bytes();
    for (bytes, expected) in [
        (index, "an index of several images"),
        (old, "schema version 1"),
        (b"<html>".to_vec(), "can't be read"),
        (manifest(&[]), "no layers"),
        (manifest(&vec![layer("a"); MAX_FILES + 1]), "2001 layers"),
        (vec![b' '; MAX_MANIFEST_BYTES + 1], "4194305 bytes"),
        (manifest(&[layer("a"), layer("b"), layer("a")]), "two layers are called a"),
        (manifest(&[layer("a/b"), layer("a-b"), layer("a")]), "a is both a file and a folder"),
        (with("digest", "sha512:00".into()), "sha512:00 is not a SHA-256 digest"),
        (with("digest", "sha256:../../x".into()), "is not a SHA-256 digest"),
        (with("size", (-1).into()), "can't be read"),
        (with("annotations", Value::Null), "looks like a container image"),
        (annotated(json!({ TITLE: "a", FILE_PATH: "b" })), "two names, a and b"),
        (annotated(json!({ TITLE: "a", "io.deis.oras.content.unpack": "true" })), "archives are not unpacked"),
        (tar("application/vnd.cncf.model.weight.v1.tar"), "modctl build --raw"),
        (tar("application/vnd.cncf.model.weight.v1.tar+zstd"), "kubectl easel push"),
        (tar("application/vnd.oci.image.layer.v1.tar+gzip"), "one raw layer a file"),
    ] {
        let refused = files(&bytes).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused:?} does not say {expected:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(paths in prop::collection::btree_set("[a-z]{1,8}(/[a-z._-]{1,3}x){0,2}", 1..20)) {
        let written: Vec<File> = paths.iter().map(|path| file(path, path.as_bytes())).collect();
        match files(&artifact(&written).manifest) {
            Ok(read) => prop_assert_eq!(read, written),
            Err(refused) => prop_assert!(matches!(refused, ArtifactError::FileAndFolder(_)), "{}", refused),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        prop_assert!(files(&bytes).is_err());
    }
}
