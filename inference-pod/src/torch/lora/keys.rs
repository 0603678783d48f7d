//! What a key of an adapter's file is about: a layer of a part, and A, B or alpha of it.
//! Knows the layouts that trainers write; reads no tensor and knows no shape.
//!
//! | layout | A, B, alpha |
//! |---|---|
//! | PEFT, as diffusers saves | `unet.LAYER.lora_A.weight`, `.lora_B.weight`; alpha in the file's metadata |
//! | diffusers of 2023 | `unet.LAYER.lora.down.weight`, `.lora.up.weight`, `.alpha`; `text_encoder.LAYER.lora_linear_layer.down.weight` |
//! | diffusers' attention processors | `unet.ATTENTION.processor.to_q_lora.down.weight`; `to_q`, `to_k`, `to_v`, `to_out` |
//! | kohya | `lora_unet_LAYER.lora_down.weight`, `.lora_up.weight`, `.alpha`, dots written as `_`; `lora_te_`, `lora_te1_`, `lora_te2_` |

use super::kohya;
use super::layers::{Layers, TEXT_MODEL};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Up,
    Alpha,
}

/// Endings of keys; longer ones before those that they end in.
const ENDINGS: [(&str, Role); 11] = [
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];

/// Kinds of adapters that are not low-rank sums, and what their keys hold.
const OTHER_KINDS: [(&str, &str); 8] = [
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lora_mid", "LoCon with a Tucker decomposition"),
    ("oft_", "OFT"),
    ("ia3_", "IA3"),
    ("glora", "GLoRA"),
];

/// Parts of a checkpoint as kohya names them; longer prefixes first. `lora_unet` is also what denoisers that are no
/// `UNet` are called.
const KOHYA: [(&str, &[&str]); 4] = [
    ("lora_unet_", &["unet", "transformer"]),
    ("lora_te1_", &["text_encoder"]),
    ("lora_te2_", &["text_encoder_2"]),
    ("lora_te_", &["text_encoder"]),
];

/// Finds the layer that a key is about.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    kohya: kohya::Names,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self { layers, kohya: kohya::Names::of(layers.paths()) }
    }

    /// The layer's path and the tensor's role; the error says why the key is not understood.
    pub(super) fn read(&self, key: &str) -> Result<(String, Role), String> {
        if let Some((_, kind)) = OTHER_KINDS.iter().find(|(mark, _)| key.contains(mark)) {
            return Err(format!("'{key}' is of the kind {kind}; only LoRA is supported"));
        }
        let ending = ENDINGS.iter().find_map(|(ending, role)| Some((key.strip_suffix(ending)?, *role)));
        let Some((name, role)) = ending else {
            return Err(format!("'{key}' is no key of a layout that is known (PEFT, diffusers, kohya)"));
        };
        match self.path(name) {
            Some(path) => Ok((path, role)),
            None => Err(format!("'{key}' is for a layer that this model does not have")),
        }
    }

    fn path(&self, name: &str) -> Option<String> {
        if let Some((prefix, parts)) = KOHYA.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            let part = parts.iter().find(|part| self.layers.has_part(part))?;
            return self.kohya.path(part, &name[prefix.len()..]).map(ToOwned::to_owned);
        }
        let (part, layer) = name.split_once('.')?;
        let layer = layer.strip_prefix(TEXT_MODEL).unwrap_or(layer);
        let path = format!("{part}.{}", of_processor(layer).as_deref().unwrap_or(layer));
        self.layers.get(&path).is_some().then_some(path)
    }
}

/// `ATTENTION.processor.to_out` and a text encoder's `self_attn.to_q` as the layers are called.
fn of_processor(layer: &str) -> Option<String> {
    let (attention, to) = layer.rsplit_once('.')?;
    if let Some(attention) = attention.strip_suffix(".processor") {
        let to = if to == "to_out" { "to_out.0" } else { to };
        return Some(format!("{attention}.{to}"));
    }
    let projection = [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")]
        .into_iter()
        .find_map(|(old, new)| (attention.ends_with("self_attn") && to == old).then_some(new))?;
    Some(format!("{attention}.{projection}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::lora::{Registry, Shape};

    fn layers() -> Layers {
        let registry = Registry::default();
        for (part, path) in [
            ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"),
            ("unet", "down_blocks.0.resnets.0.conv1"),
            ("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"),
            ("text_encoder_2", "encoder.layers.0.mlp.fc1"),
        ] {
            registry.add(part, path, Shape::Linear { input: 1, output: 1 });
        }
        registry.layers()
    }

    #[test]
    fn every_layout_leads_to_the_layer_by_its_path() {
        let layers = layers();
        let reader = Reader::new(&layers);
        let out = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let query = "text_encoder.encoder.layers.0.self_attn.q_proj";
        for (key, path, role) in [
            (format!("{out}.lora_A.weight"), out, Role::Down),
            (format!("{out}.lora.up.weight"), out, Role::Up),
            (format!("{out}.alpha"), out, Role::Alpha),
            (out.replace("attn1.to_out.0", "attn1.processor.to_out_lora.up.weight"), out, Role::Up),
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.alpha".into(), out, Role::Alpha),
            ("text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight".into(), query, Role::Down),
            (format!("{query}.lora_linear_layer.down.weight"), query, Role::Down),
            ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight".into(), query, Role::Up),
            ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight".into(), query, Role::Up),
            (
                "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight".into(),
                "text_encoder_2.encoder.layers.0.mlp.fc1",
                Role::Down,
            ),
        ] {
            assert_eq!(reader.read(&key), Ok((path.to_owned(), role)), "{key}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        let layers = layers();
        let reader = Reader::new(&layers);
        for (key, word) in [
            ("lora_unet_down_blocks_0_resnets_0_conv1.hada_w1_a", "LoHa"),
            ("lora_unet_down_blocks_0_resnets_0_conv1.dora_scale", "DoRA"),
            ("unet.down_blocks.0.resnets.0.conv1.lora_magnitude_vector", "DoRA"),
            ("lora_unet_down_blocks_7_resnets_0_conv1.lora_down.weight", "does not have"),
            ("transformer.down_blocks.0.resnets.0.conv1.lora_A.weight", "does not have"),
            ("unet.down_blocks.0.resnets.0.conv1.weight", "no key of a layout"),
            ("unet.down_blocks.0.resnets.0.conv1.lora_B.bias", "no key of a layout"),
        ] {
            let refusal = reader.read(key).unwrap_err();
            assert!(refusal.contains(key) && refusal.contains(word), "{refusal}");
        }
    }
}
