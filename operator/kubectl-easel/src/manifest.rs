//! The ImageModel of a checkpoint that was pushed. Knows its YAML; does not know clusters.

use std::fmt::Write;
use std::path::Path;

use crate::reference::Artifact;

/// What the manifest says.
pub(crate) struct Model<'a> {
    pub(crate) name: &'a str,
    pub(crate) artifact: &'a Artifact,
    pub(crate) plain_http: bool,
    /// Of the safetensors files.
    pub(crate) weight_bytes: u64,
    /// Pixels, of both sides; `None` when the folder does not say.
    pub(crate) side: Option<u64>,
}

/// A name that the ImageModel's rules take.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = text.len() <= 40
        && text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|c| inner(c) || matches!(c, '-' | '.'));
    if good { Ok(text.to_owned()) } else { Err("a name has lower-case letters, digits and -, at most 40".into()) }
}

pub(crate) fn yaml(model: &Model<'_>) -> String {
    let Model { name, artifact, plain_http, weight_bytes, side } = model;
    let mut text = format!(
        "apiVersion: easel.dev/v1alpha1\n\
         kind: ImageModel\n\
         metadata:\n  name: {name}\n\
         spec:\n  checkpoint:\n    uri: {artifact}\n"
    );
    if *plain_http {
        text.push_str("    plainHttp: true\n");
    }
    let _ = writeln!(text, "  memory: {}Mi # a guess from the weights", memory_mib(*weight_bytes));
    if let Some(side) = side {
        let _ = writeln!(text, "  defaults: {{size: {side}x{side}}}");
    }
    text
}

/// Half as much again for what a request needs, and a floor for libtorch's own; in steps of 128.
fn memory_mib(weight_bytes: u64) -> u64 {
    let mib = weight_bytes.div_ceil(1 << 20);
    (mib + mib / 2 + 128).next_multiple_of(128)
}

/// The size that the model was trained for: its latents' side, times what the VAE enlarges.
pub(crate) fn side(folder: &Path) -> Option<u64> {
    let read = |path: &str| {
        let text = std::fs::read(folder.join(path)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    let latents = read("unet/config.json").or_else(|| read("transformer/config.json"))?.get("sample_size")?.as_u64()?;
    let stages = read("vae/config.json")?.get("block_out_channels")?.as_array()?.len();
    let side = latents.checked_shl(u32::try_from(stages.checked_sub(1)?).ok()?)?;
    (16..=4096).contains(&side).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_pins_the_digest() {
        let digest = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
        let artifact = format!("oci://localhost:5000/models/emoji@{digest}").parse().unwrap();
        let model =
            Model { name: "emoji", artifact: &artifact, plain_http: true, weight_bytes: 14 << 20, side: Some(64) };
        let expected = format!(
            "apiVersion: easel.dev/v1alpha1\nkind: ImageModel\nmetadata:\n  name: emoji\nspec:\n  checkpoint:\n    \
             uri: oci://localhost:5000/models/emoji@{digest}\n    plainHttp: true\n  memory: 256Mi # a guess from the \
             weights\n  defaults: {{size: 64x64}}\n"
        );
        assert_eq!(yaml(&model), expected);
    }

    #[test]
    fn the_size_is_read_from_the_folder_and_left_out_when_it_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(side(folder.path()), None);
        for (path, text) in [("unet", r#"{"sample_size":128}"#), ("vae", r#"{"block_out_channels":[1,2,3,4]}"#)] {
            std::fs::create_dir(folder.path().join(path)).unwrap();
            std::fs::write(folder.path().join(path).join("config.json"), text).unwrap();
        }
        assert_eq!(side(folder.path()), Some(1024));
    }

    #[test]
    fn a_name_that_the_cluster_would_refuse_is_refused() {
        assert!(name("emoji-2").is_ok());
        for wrong in ["", "Emoji", "-a", "a-", "a_b", &"a".repeat(41)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
