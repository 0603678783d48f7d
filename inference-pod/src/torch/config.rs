//! Reads a component's `config.json` so that no option is passed over in silence.
//! Knows JSON and defaults; the components say which options they implement.

use easel_checkpoints::Files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::pipeline::LoadError;

/// The options of one component that have not been taken yet.
#[derive(Debug)]
pub struct Config {
    /// For messages: `unet/config.json`.
    file: String,
    options: Map<String, Value>,
}

/// diffusers writes an option of each stage as one value where all are equal.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl Config {
    /// Reads a file of a checkpoint, such as `unet/config.json`.
    pub fn read(checkpoint: &Files, file: &str) -> Result<Self, LoadError> {
        let bytes = checkpoint.read(file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                LoadError::Unsupported(format!("{file} is missing; a checkpoint is a folder in the diffusers layout"))
            }
            _ => LoadError::Failed { part: file.to_owned(), source: Box::new(source) },
        })?;
        let options = serde_json::from_slice(&without_infinities(&bytes))
            .map_err(|source| LoadError::Failed { part: file.to_owned(), source: Box::new(source) })?;
        Ok(Self { file: file.to_owned(), options })
    }

    /// The same, or an empty config where there is no such file.
    pub fn read_optional(checkpoint: &Files, file: &str) -> Result<Self, LoadError> {
        if checkpoint.contains(file) {
            return Self::read(checkpoint, file);
        }
        Ok(Self { file: file.to_owned(), options: Map::new() })
    }

    /// Removes an option and reads it. Absent and `null` are `None`.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, LoadError> {
        let Some(value) = self.options.remove(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let text = value.to_string();
        serde_json::from_value(value).map(Some).map_err(|_| self.unsupported(key, format_args!("{text}")))
    }

    /// Removes an option that has no default.
    pub fn need<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, LoadError> {
        self.take(key)?.ok_or_else(|| LoadError::Unsupported(format!("{}: the option '{key}' is missing", self.file)))
    }

    /// Removes an option, `None` meaning `default`.
    pub fn take_or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T, LoadError> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    /// Removes an option that is one value or one for each of `count` stages.
    pub fn take_each<T>(&mut self, key: &str, default: T, count: usize) -> Result<Vec<T>, LoadError>
    where
        T: DeserializeOwned + Clone + std::fmt::Debug,
    {
        match self.take_or(key, OneOrMany::One(default))? {
            OneOrMany::One(value) => Ok(vec![value; count]),
            OneOrMany::Many(values) if values.len() == count => Ok(values),
            OneOrMany::Many(values) => Err(self.unsupported(key, format_args!("{values:?} for {count} stages"))),
        }
    }

    /// Removes options that do not change what is computed.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.options.remove(*key);
        }
    }

    /// Refuses what is left and not neutral: `null`, `false`, or the value in `neutral`.
    pub fn finish(self, neutral: &[(&str, Value)]) -> Result<(), LoadError> {
        let is_neutral = |key: &str, value: &Value| {
            key.starts_with('_')
                || matches!(value, Value::Null | Value::Bool(false))
                || neutral.iter().any(|(name, default)| *name == key && same(value, default))
        };
        match self.options.iter().find(|(key, value)| !is_neutral(key, value)) {
            Some((key, value)) => Err(self.unsupported(key, format_args!("{value}"))),
            None => Ok(()),
        }
    }

    pub fn unsupported(&self, key: &str, value: impl std::fmt::Debug) -> LoadError {
        LoadError::Unsupported(format!("{}: the option '{key}' = {value:?} is not supported", self.file))
    }
}

/// Python writes numbers that are not finite as words that JSON does not have (diffusers: `"lambda_min_clipped":
/// -Infinity`). They mean "no bound", as `null` does.
fn without_infinities(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_string) = (bytes, false);
    while let Some((&first, after)) = rest.split_first() {
        let word = [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|word| rest.starts_with(word));
        if let Some(word) = word.filter(|_| !in_string) {
            out.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        let escape = in_string && first == b'\\' && !after.is_empty();
        let taken = if escape { 2 } else { 1 };
        in_string ^= first == b'"';
        out.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// Equal as diffusers sees it: `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config { file: "unet/config.json".into(), options: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn an_option_that_nobody_took_is_refused_by_name() {
        let refusal = config(r#"{"class_embed_type": "timestep"}"#).finish(&[]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            r#"unet/config.json: the option 'class_embed_type' = "timestep" is not supported"#
        );
    }

    #[test]
    fn neutral_options_pass() {
        let config = config(r#"{"_class_name": "X", "dual": false, "norm": null, "scale": 1.0, "kernel": 3}"#);
        config.finish(&[("scale", 1.into()), ("kernel", 3.into())]).unwrap();
    }

    #[test]
    fn infinities_as_python_writes_them_mean_no_bound_and_text_stays() {
        let written = br#"{"a": -Infinity, "b": [NaN, Infinity], "c": "NaN \"-Infinity\\", "d": 1}"#;
        let read: Value = serde_json::from_slice(&without_infinities(written)).unwrap();
        assert_eq!(read, serde_json::json!({"a": null, "b": [null, null], "c": "NaN \"-Infinity\\", "d": 1}));
    }

    #[test]
    fn one_value_stands_for_every_stage() {
        let mut config = config(r#"{"heads": 8, "layers": [1, 2], "short": [1]}"#);
        assert_eq!(config.take_each("heads", 1, 2).unwrap(), [8, 8]);
        assert_eq!(config.take_each("layers", 1, 2).unwrap(), [1, 2]);
        assert_eq!(config.take_each("absent", 5, 2).unwrap(), [5, 5]);
        assert!(config.take_each("short", 1, 2).is_err());
    }
}
