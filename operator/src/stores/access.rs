//! What a model's Secret says to its checkpoint's store. Pure.
//! Reads the few keys that it knows; no word of a value gets into a sentence.

use std::collections::BTreeMap;

use easel_api::engine::{Access, Secret, Source};

use super::docker_config;
use super::secrets::{Contents, SecretKey, Secrets};

/// Of type `kubernetes.io/dockerconfigjson`.
pub(super) const DOCKER_CONFIG: &str = ".dockerconfigjson";
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
const CA: &str = "ca.crt";
/// Whatever else is in a Secret is not kept.
pub(super) const KEYS: [&str; 7] = [DOCKER_CONFIG, USERNAME, PASSWORD, KEY_ID, SECRET_KEY, SESSION_TOKEN, CA];

/// What a model has to show to its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// It names no Secret.
    None,
    Found(Access),
    /// The Secret, or what must be in it, is not there; a sentence.
    Missing(String),
    /// The Secret was not read yet.
    Unread,
}

impl Credential {
    pub fn access(&self) -> Option<&Access> {
        match self {
            Self::Found(access) => Some(access),
            Self::None | Self::Missing(_) | Self::Unread => None,
        }
    }
}

/// What the Secret of this name says to a source.
pub fn credential(namespace: &str, secret: Option<&str>, source: &Source, secrets: &Secrets) -> Credential {
    let Some(name) = secret else { return Credential::None };
    let key = SecretKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let missing = |what: String| Credential::Missing(format!("Secret {key} {what}"));
    match secrets.read.get(&key) {
        None => Credential::Unread,
        Some(Contents::Absent) => missing("does not exist; create it, or mend spec.checkpoint.secretRef".into()),
        Some(Contents::Found(data)) => match read(source, data) {
            Ok(access) => Credential::Found(access),
            Err(what) => missing(what),
        },
    }
}

/// The error says what is missing, and goes on after the Secret's name.
fn read(source: &Source, data: &BTreeMap<String, Vec<u8>>) -> Result<Access, String> {
    let ca = text(data, CA)?;
    if ca.as_ref().is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----")) {
        return Err(format!("has a {CA} that is no PEM certificate; put the authority's certificate there"));
    }
    let found = match source {
        Source::Oci { registry, repository, plain_http: _ } => {
            registry_access(data, registry, repository, ca.as_ref())?
        }
        Source::S3 { .. } => s3_access(data, ca.as_ref())?,
        Source::Folder { path: _ } => None,
    };
    let known = match source {
        Source::Oci { .. } => format!("{DOCKER_CONFIG}, {USERNAME} and {PASSWORD}, or {CA}"),
        Source::S3 { .. } => format!("{KEY_ID} and {SECRET_KEY}, or {CA}"),
        Source::Folder { path: _ } => return Err("is for oci:// and s3:// checkpoints".into()),
    };
    found.or(ca.map(|ca| Access::Authority { ca })).ok_or(format!("has none of {known}"))
}

fn registry_access(
    data: &BTreeMap<String, Vec<u8>>,
    registry: &str,
    repository: &str,
    ca: Option<&String>,
) -> Result<Option<Access>, String> {
    let login = match text(data, DOCKER_CONFIG)? {
        Some(config) => Some(docker_config::login(&config, registry, repository)?),
        None => both(data, USERNAME, PASSWORD)?,
    };
    let access = |(username, password)| Access::Registry { username, password: Secret(password), ca: ca.cloned() };
    Ok(login.map(access))
}

fn s3_access(data: &BTreeMap<String, Vec<u8>>, ca: Option<&String>) -> Result<Option<Access>, String> {
    let Some((access_key_id, secret)) = both(data, KEY_ID, SECRET_KEY)? else { return Ok(None) };
    let session_token = text(data, SESSION_TOKEN)?.map(Secret);
    Ok(Some(Access::S3 { access_key_id, secret_access_key: Secret(secret), session_token, ca: ca.cloned() }))
}

/// Two keys that are of no use without each other.
fn both(data: &BTreeMap<String, Vec<u8>>, one: &str, other: &str) -> Result<Option<(String, String)>, String> {
    match (text(data, one)?, text(data, other)?) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("has {one} and no {other}; add it")),
        (None, Some(_)) => Err(format!("has {other} and no {one}; add it")),
    }
}

/// Without the line end that `--from-file` brings along. Nothing there and an empty value are the same.
fn text(data: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<Option<String>, String> {
    let Some(bytes) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("has a {key} that is no UTF-8 text; write it anew"))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

    fn oci() -> Source {
        Source::Oci { registry: "r.example:5000".into(), repository: "team/m".into(), plain_http: false }
    }

    fn s3() -> Source {
        Source::S3 { bucket: "b".into(), prefix: String::new(), endpoint: None, region: None }
    }

    fn of(source: &Source, data: &[(&str, &str)]) -> Credential {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        let key = SecretKey { namespace: "art".into(), name: "s".into() };
        let secrets = Secrets { complete: true, read: [(key, Contents::Found(data))].into() };
        credential("art", Some("s"), source, &secrets)
    }

    fn login(ca: Option<&str>) -> Credential {
        let (username, password) = ("me".to_owned(), Secret("hunter2".into()));
        Credential::Found(Access::Registry { username, password, ca: ca.map(str::to_owned) })
    }

    fn keys(session_token: Option<&str>, ca: Option<&str>) -> Credential {
        Credential::Found(Access::S3 {
            access_key_id: "me".into(),
            secret_access_key: Secret("hunter2".into()),
            session_token: session_token.map(|token| Secret(token.into())),
            ca: ca.map(str::to_owned),
        })
    }

    #[test]
    fn every_form_of_a_secret_becomes_what_the_store_asks_for() {
        let config = r#"{"auths": {"r.example:5000": {"username": "me", "password": "hunter2"}}}"#;
        let (id, secret) = ((KEY_ID, "me"), (SECRET_KEY, "hunter2"));
        let authority = Credential::Found(Access::Authority { ca: PEM.into() });
        for (source, data, expected) in [
            (oci(), vec![(DOCKER_CONFIG, config)], login(None)),
            (oci(), vec![(DOCKER_CONFIG, config), (CA, PEM)], login(Some(PEM))),
            (oci(), vec![(USERNAME, "me\n"), (PASSWORD, "hunter2\n")], login(None)),
            (oci(), vec![(CA, PEM)], authority.clone()),
            (s3(), vec![id, secret], keys(None, None)),
            (s3(), vec![id, secret, (SESSION_TOKEN, "t"), (CA, PEM)], keys(Some("t"), Some(PEM))),
            (s3(), vec![id, secret, (SESSION_TOKEN, "")], keys(None, None)),
            (s3(), vec![(CA, PEM)], authority),
        ] {
            assert_eq!(of(&source, &data), expected, "{data:?}");
        }
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_that_is_there() {
        for (source, data, words) in [
            (oci(), vec![], "Secret art/s has none of .dockerconfigjson, username and password, or ca.crt"),
            (oci(), vec![(USERNAME, "hunter2")], "has username and no password; add it"),
            (oci(), vec![(DOCKER_CONFIG, "hunter2")], "is no Docker configuration"),
            (oci(), vec![(KEY_ID, "hunter2"), (SECRET_KEY, "hunter2")], "has none of .dockerconfigjson"),
            (s3(), vec![(SECRET_KEY, "hunter2")], "has AWS_SECRET_ACCESS_KEY and no AWS_ACCESS_KEY_ID; add it"),
            (s3(), vec![(USERNAME, "me"), (PASSWORD, "hunter2")], "has none of AWS_ACCESS_KEY_ID"),
            (s3(), vec![(CA, "hunter2")], "has a ca.crt that is no PEM certificate"),
        ] {
            let Credential::Missing(message) = of(&source, &data) else { panic!("{data:?}") };
            assert!(message.contains(words) && !message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_secret_that_is_absent_is_another_thing_than_one_that_was_not_read_yet() {
        let key = SecretKey { namespace: "art".into(), name: "s".into() };
        let absent = Secrets { complete: true, read: [(key, Contents::Absent)].into() };
        let message = "Secret art/s does not exist; create it, or mend spec.checkpoint.secretRef".to_owned();
        assert_eq!(credential("art", Some("s"), &s3(), &absent), Credential::Missing(message));
        assert_eq!(credential("other", Some("s"), &s3(), &absent), Credential::Unread);
        assert_eq!(credential("art", None, &s3(), &absent), Credential::None);
    }

    #[test]
    fn no_debug_text_shows_a_secret() {
        let shown = format!("{:?}", of(&s3(), &[(KEY_ID, "me"), (SECRET_KEY, "hunter2"), (SESSION_TOKEN, "hunter2")]));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
