//! Layers by the names that kohya's trainer gives them: dots written as `_`, and for SDXL the names of the code that its
//! `UNet` was published with. Transcribed from diffusers 0.42.1, `loaders/lora_conversion_utils.py`; knows paths only.

use std::collections::BTreeMap;

use super::layers::TEXT_MODEL;

/// Of all layers of a model: part and flattened name, to the path.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<(String, String), String>);

impl Names {
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let paths: Vec<&str> = paths.collect();
        let layers_per_block = paths
            .iter()
            .filter_map(|path| path.strip_prefix("unet.down_blocks.0.resnets."))
            .filter(|layer| layer.strip_suffix("conv1").is_some())
            .count();
        let mut names = BTreeMap::new();
        for path in paths {
            let Some((part, layer)) = path.split_once('.') else { continue };
            let mut add = |name: &str| names.insert((part.to_owned(), name.replace('.', "_")), path.to_owned());
            add(layer);
            if part.starts_with("text_encoder") {
                add(&format!("{TEXT_MODEL}{layer}"));
            }
            if let Some(name) = (part == "unet").then(|| published(layer, layers_per_block)).flatten() {
                add(&name);
            }
        }
        Self(names)
    }

    pub(super) fn path(&self, part: &str, name: &str) -> Option<&str> {
        self.0.get(&(part.to_owned(), name.to_owned())).map(String::as_str)
    }
}

/// `_maybe_map_sgm_blocks_to_diffusers` and `_convert_unet_lora_key`, from our side: `down_blocks.1.attentions.0.proj_in`
/// was `input_blocks.4.1.proj_in`.
fn published(layer: &str, layers_per_block: usize) -> Option<String> {
    let whole = [
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ];
    if let Some((_, name)) = whole.iter().find(|(ours, _)| *ours == layer) {
        return Some((*name).to_owned());
    }
    let parts: Vec<&str> = layer.split('.').collect();
    match parts[..] {
        ["mid_block", kind, number, ref rest @ ..] => {
            let place = if kind == "attentions" { 1 } else { 2 * number.parse::<usize>().ok()? };
            Some(format!("middle_block.{place}.{}", inner(rest)))
        }
        [side @ ("down_blocks" | "up_blocks"), block, kind, number, ref rest @ ..] => {
            // A stage has one more for its change of resolution, going down; going up it has one more residual block.
            let first = block.parse::<usize>().ok()? * (layers_per_block + 1);
            let number: usize = number.parse().ok()?;
            let (blocks, offset) = if side == "down_blocks" { ("input_blocks", 1) } else { ("output_blocks", 0) };
            Some(match kind {
                "downsamplers" => format!("{blocks}.{}.0.op", first + layers_per_block + 1),
                "upsamplers" => format!("{blocks}.{}.2.conv", first + layers_per_block),
                "attentions" => format!("{blocks}.{}.1.{}", first + offset + number, inner(rest)),
                _ => format!("{blocks}.{}.0.{}", first + offset + number, inner(rest)),
            })
        }
        _ => None,
    }
}

/// Within a residual block; what attention is made of has kept its names.
fn inner(rest: &[&str]) -> String {
    match rest {
        ["conv1"] => "in_layers.2".into(),
        ["time_emb_proj"] => "emb_layers.1".into(),
        ["conv2"] => "out_layers.3".into(),
        ["conv_shortcut"] => "skip_connection".into(),
        other => other.join("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of files that are in use: kohya's trainer for SDXL, whose stages have two layers each.
    #[test]
    fn layers_of_sdxl_have_the_names_of_its_first_code_too() {
        for (ours, theirs) in [
            (
                "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
                "input_blocks.4.1.transformer_blocks.1.attn2.to_k",
            ),
            ("down_blocks.2.attentions.1.proj_out", "input_blocks.8.1.proj_out"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
            ("mid_block.resnets.1.conv1", "middle_block.2.in_layers.2"),
            ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
            ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
            ("up_blocks.2.resnets.0.conv_shortcut", "output_blocks.6.0.skip_connection"),
        ] {
            assert_eq!(published(ours, 2).as_deref(), Some(theirs));
        }
    }
}
