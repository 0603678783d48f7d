//! `oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]` and what a command takes of it.
//! Knows text, by the same rules as the ImageModel's own; does not know registries.

use std::path::PathBuf;
use std::str::FromStr;

use easel_checkpoints::digest::Digest;
use oci_client::Reference;

/// Where something is pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
}

/// What is in a registry already, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    Folder(PathBuf),
    Artifact(Artifact),
}

impl Target {
    /// As a registry is asked; `digest` names what has no tag.
    pub(crate) fn reference(&self, digest: &Digest) -> Reference {
        let Self { registry, repository, tag } = self.clone();
        match tag {
            Some(tag) => Reference::with_tag(registry, repository, tag),
            None => Reference::with_digest(registry, repository, digest.to_string()),
        }
    }

    pub(crate) fn pinned(&self, digest: Digest) -> Artifact {
        let Self { registry, repository, tag: _ } = self.clone();
        Artifact { registry, repository, digest }
    }
}

impl Artifact {
    pub(crate) fn reference(&self) -> Reference {
        let Self { registry, repository, digest } = self.clone();
        Reference::with_digest(registry, repository, digest.to_string())
    }
}

impl std::fmt::Display for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { registry, repository, digest } = self;
        write!(f, "oci://{registry}/{repository}@{digest}")
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse(text)? {
            (target, None) => Ok(target),
            (_, Some(_)) => Err("a push makes the digest; leave @… out, and give a tag if you want one".into()),
        }
    }
}

impl FromStr for Artifact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse(text)? {
            (Target { registry, repository, tag: _ }, Some(digest)) => Ok(Self { registry, repository, digest }),
            (_, None) => Err("a tag may move; name the digest that push printed, oci://…@sha256:…".into()),
        }
    }
}

fn parse(text: &str) -> Result<(Target, Option<Digest>), String> {
    let rest = text
        .strip_prefix("oci://")
        .ok_or("it does not begin with oci://, such as oci://registry.example/models/emoji:v1")?;
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => {
            let digest = digest.parse().map_err(|()| format!("{digest} is not sha256: and 64 hexadecimal digits"))?;
            (name, Some(digest))
        }
        None => (rest, None),
    };
    let (registry, path) = name.split_once('/').ok_or("it has no repository; write oci://REGISTRY/REPOSITORY")?;
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if !is_registry(registry) {
        return Err(format!("'{registry}' is not a host, with :PORT if need be"));
    }
    if !repository.split('/').all(is_repository_part) {
        return Err(format!(
            "'{repository}' is not a repository: lower-case letters, digits, and . _ - within, between slashes"
        ));
    }
    if !tag.is_none_or(is_tag) {
        return Err("the tag is not one: letters, digits, . _ -, at most 128".into());
    }
    let (registry, repository) = (registry.to_owned(), repository.to_owned());
    Ok((Target { registry, repository, tag: tag.map(str::to_owned) }, digest))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let host_characters = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    !host.is_empty() && host_characters && port.parse::<u16>().is_ok()
}

fn is_repository_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || matches!(c, '.' | '_' | '-'))
}

fn is_tag(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(inner) && text.chars().all(|c| inner(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

    #[test]
    fn a_target_is_read_with_its_port_and_tag() {
        for (text, registry, repository, tag) in [
            ("oci://registry.example/emoji", "registry.example", "emoji", None),
            ("oci://localhost:5000/models/emoji:v1.2", "localhost:5000", "models/emoji", Some("v1.2")),
            ("oci://10.0.0.1/a/b/c-d_e.f:latest", "10.0.0.1", "a/b/c-d_e.f", Some("latest")),
        ] {
            let (registry, repository, tag) = (registry.into(), repository.into(), tag.map(str::to_owned));
            assert_eq!(text.parse(), Ok(Target { registry, repository, tag }));
        }
    }

    #[test]
    fn an_artifact_reads_back_from_what_push_prints() {
        let text = format!("oci://localhost:5000/models/emoji@{DIGEST}");
        assert_eq!(text.parse::<Artifact>().unwrap().to_string(), text);
        let tagged = format!("oci://localhost:5000/models/emoji:v1@{DIGEST}");
        assert_eq!(tagged.parse::<Artifact>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_reference_is_refused_with_what_to_write() {
        for (text, why) in [
            ("registry.example/emoji", "does not begin with oci://"),
            ("https://registry.example/emoji", "does not begin with oci://"),
            ("oci://registry.example", "no repository"),
            ("oci:///emoji", "not a host"),
            ("oci://registry.example:x/emoji", "not a host"),
            ("oci://user@registry.example/emoji", "not sha256:"),
            ("oci://registry.example/Emoji", "lower-case"),
            ("oci://registry.example/a//b", "not a repository"),
            ("oci://registry.example/../b", "not a repository"),
            ("oci://registry.example/a:", "the tag is not one"),
            ("oci://registry.example/a:b:c", "the tag is not one"),
            ("oci://registry.example/a@sha256:00", "not sha256:"),
            (&format!("oci://registry.example/a@{DIGEST}"), "leave @… out"),
        ] {
            let refused = text.parse::<Target>().unwrap_err();
            assert!(refused.contains(why), "{refused:?} does not say {why:?}");
        }
        assert!("oci://registry.example/a:v1".parse::<Artifact>().unwrap_err().contains("a tag may move"));
    }
}
