//! Adapters (`LoRA`) of a model, as a request names them.
//! Knows names and weights; which adapters a model has is told.

use serde::{Deserialize, Serialize};

use super::invalid_value;
use crate::error::ApiError;

/// Of one request. Each adds two small products to every layer; more than a few are no style any more.
pub const MAX_ADAPTERS: usize = 4;
/// Either way: twice as strong as it was trained is where pictures fall apart.
pub const MAX_ADAPTER_WEIGHT: f32 = 2.0;

/// Extension: `{"name": "pixel-art", "weight": 0.8}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterChoice {
    pub name: String,
    /// 1 as it was trained, which is what is meant without it; negative is away from it.
    #[serde(default = "as_trained")]
    pub weight: f32,
}

fn as_trained() -> f32 {
    1.0
}

/// Checks what does not depend on a model.
pub(super) fn check(adapters: &[AdapterChoice]) -> Result<(), ApiError> {
    if adapters.len() > MAX_ADAPTERS {
        let message = format!("adapters has {} entries; at most {MAX_ADAPTERS}", adapters.len());
        return Err(invalid_value("adapters", message));
    }
    for (index, AdapterChoice { name, weight }) in adapters.iter().enumerate() {
        if !(-MAX_ADAPTER_WEIGHT..=MAX_ADAPTER_WEIGHT).contains(weight) {
            let param = format!("adapters[{index}].weight");
            let message = format!("{param} must be -{MAX_ADAPTER_WEIGHT} to {MAX_ADAPTER_WEIGHT}");
            return Err(invalid_value(&param, message));
        }
        if adapters[..index].iter().any(|other| other.name == *name) {
            return Err(invalid_value("adapters", format!("'{}' is in adapters twice", shown(name))));
        }
    }
    Ok(())
}

/// Refuses the first that a model of these adapters does not have.
pub(super) fn check_known(adapters: &[AdapterChoice], known: &[impl AsRef<str>]) -> Result<(), ApiError> {
    let is_known = |name: &str| known.iter().any(|known| known.as_ref() == name);
    match adapters.iter().find(|chosen| !is_known(&chosen.name)) {
        Some(AdapterChoice { name, weight: _ }) => {
            Err(ApiError::invalid("adapters", "unknown_adapter", unknown_adapter(name, known)))
        }
        None => Ok(()),
    }
}

/// What is said of an adapter that a model does not have.
pub fn unknown_adapter(name: &str, known: &[impl AsRef<str>]) -> String {
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    match known[..] {
        [] => format!("this model has no adapter '{}', nor any other", shown(name)),
        _ => format!("this model has no adapter '{}'; it has {}", shown(name), known.join(", ")),
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::super::GenerationRequest;
    use super::*;

    fn request(adapters: &str) -> Result<GenerationRequest, ApiError> {
        let request = GenerationRequest::parse(format!(r#"{{"prompt": "a cat", "adapters": {adapters}}}"#).as_bytes())?;
        request.check().map(|()| request)
    }

    fn refusal(adapters: &str) -> (String, String) {
        let error = request(adapters).unwrap_err();
        (error.param.unwrap(), error.message)
    }

    #[test]
    fn adapters_are_named_with_a_weight_or_as_trained() {
        let read = request(r#"[{"name": "ink", "weight": -0.5}, {"name": "wax"}]"#).unwrap();
        let weights: Vec<_> = read.adapters.iter().flatten().map(|chosen| (&*chosen.name, chosen.weight)).collect();
        assert_eq!(weights, [("ink", -0.5), ("wax", 1.0)]);
        assert_eq!(request("[]").unwrap().adapters, Some(Vec::new()));
    }

    #[test]
    fn too_many_too_strong_or_twice_is_refused_with_the_field() {
        assert_eq!(refusal(r#"[{"name": "a", "weight": 2.1}]"#).0, "adapters[0].weight");
        assert_eq!(refusal(r#"[{"name": "b"}, {"name": "a", "weight": -3}]"#).0, "adapters[1].weight");
        assert!(refusal(r#"[{"name": "a"}, {"name": "a"}]"#).1.contains("'a' is in adapters twice"));
        let five = [r#"{"name": "a"}"#; 5].join(",");
        assert!(refusal(&format!("[{five}]")).1.contains("5 entries; at most 4"));
        assert!(refusal(r#"[{"nam": "a"}]"#).0.starts_with("adapters"));
        assert!(refusal(r#"["ink"]"#).0.starts_with("adapters"));
    }

    #[test]
    fn an_adapter_that_the_model_does_not_have_is_refused_with_those_that_it_has() {
        let read = request(r#"[{"name": "ink"}, {"name": "oil"}]"#).unwrap();
        assert!(read.check_adapters(&["oil", "ink"]).is_ok());
        let error = read.check_adapters(&["ink", "wax"]).unwrap_err();
        assert_eq!((error.status, error.code.as_deref()), (400, Some("unknown_adapter")));
        assert_eq!(error.message, "this model has no adapter 'oil'; it has ink, wax");
        let none: [&str; 0] = [];
        assert!(read.check_adapters(&none).unwrap_err().message.contains("nor any other"));
    }
}
