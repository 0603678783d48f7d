//! Alphas as diffusers saves them since 0.34: in the file's metadata, by part, as PEFT's `LoraConfig` has them.
//! Knows `lora_adapter_metadata`; refuses by name what would be computed in another way.

use std::collections::HashMap;

use serde_json::{Map, Value};

pub(super) const METADATA: &str = "lora_adapter_metadata";

/// Options of a `LoraConfig` that change what is computed, unless they are false.
const OTHER_WAYS: [&str; 5] = ["use_dora", "use_rslora", "lora_bias", "use_qalora", "use_bdlora"];

/// Empty where a file says nothing; then alpha is the rank.
#[derive(Debug, Default)]
pub(super) struct Alphas(Map<String, Value>);

impl Alphas {
    /// The error names what is not understood.
    pub(super) fn read(metadata: Option<&HashMap<String, String>>) -> Result<Self, String> {
        let Some(text) = metadata.and_then(|metadata| metadata.get(METADATA)) else { return Ok(Self::default()) };
        let options: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("its metadata '{METADATA}' can't be read: {error}"))?;
        let is_on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        for (key, value) in &options {
            if OTHER_WAYS.iter().any(|way| key.ends_with(&format!(".{way}"))) && is_on(value) {
                return Err(format!("its metadata has '{key}' = {value}, which is not supported"));
            }
        }
        Ok(Self(options))
    }

    /// Of a layer of a part; `layer` without `text_model.`, which patterns may have or not.
    pub(super) fn of(&self, part: &str, layer: &str) -> Option<f64> {
        let pattern = self.0.get(&format!("{part}.alpha_pattern")).and_then(Value::as_object);
        let special = pattern.into_iter().flatten().find(|(pattern, _)| is_of(pattern, layer)).map(|(_, alpha)| alpha);
        special.or_else(|| self.0.get(&format!("{part}.lora_alpha"))).and_then(Value::as_f64)
    }
}

/// PEFT 0.21.2, `utils/other.py`, `get_pattern_key`: the whole path or what follows a dot. It takes patterns as regular
/// expressions; diffusers writes paths.
fn is_of(pattern: &str, layer: &str) -> bool {
    let pattern = pattern.strip_prefix(super::layers::TEXT_MODEL).unwrap_or(pattern);
    layer.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Alphas, String> {
        Alphas::read(Some(&HashMap::from([(METADATA.to_owned(), json.to_owned())])))
    }

    #[test]
    fn a_layer_has_the_alpha_of_its_pattern_or_of_its_part() {
        let alphas = read(r#"{"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_q": 8}}"#).unwrap();
        assert_eq!(alphas.of("unet", "mid_block.attn1.to_q"), Some(8.0));
        assert_eq!(alphas.of("unet", "mid_block.attn1.to_k"), Some(4.0));
        assert_eq!(alphas.of("unet", "mid_block.xattn1.to_q"), Some(4.0));
        assert_eq!(alphas.of("text_encoder", "q_proj"), None);
    }

    #[test]
    fn other_ways_to_compute_are_refused_by_name() {
        for key in ["unet.use_dora", "unet.use_rslora", "text_encoder.lora_bias"] {
            assert!(read(&format!("{{\"{key}\": true}}")).unwrap_err().contains(key));
            read(&format!("{{\"{key}\": false}}")).unwrap();
        }
        assert!(read("[").is_err());
    }
}
