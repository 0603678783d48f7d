//! What to show a registry: the flags, or what `docker login` left behind.
//! Knows docker's file and its helpers; shows a secret to nobody but the registry.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::args;

/// `registry` as it stands in a reference.
pub(crate) fn find(flags: &args::Registry, registry: &str) -> anyhow::Result<RegistryAuth> {
    if let Some(username) = &flags.username {
        let mut password = String::new();
        std::io::stdin().read_to_string(&mut password).context("failed to read the password from stdin")?;
        return Ok(RegistryAuth::Basic(username.clone(), password.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let Some(path) = config_path() else { return Ok(RegistryAuth::Anonymous) };
    if !path.exists() {
        return Ok(RegistryAuth::Anonymous);
    }
    let config = read(&path)?;
    let found = config.answer(registry, ask_helper);
    found.with_context(|| format!("failed to take the credential of {registry} from '{}'", path.display()))
}

fn config_path() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

fn read(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read(path).with_context(|| format!("failed to read '{}'", path.display()))?;
    // Without the parser's own words: they may quote a secret.
    serde_json::from_slice(&text)
        .ok()
        .with_context(|| format!("'{}' is not docker's config.json; log in again with docker login", path.display()))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a helper says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

const IDENTITY_TOKEN: &str = "it is an identity token, which is not supported; give --username and --password-stdin";

impl Config {
    /// In docker's order: the registry's own helper, the helper for all, the file.
    fn answer(
        &self,
        registry: &str,
        ask: impl Fn(&str, &str) -> anyhow::Result<Option<Answer>>,
    ) -> anyhow::Result<RegistryAuth> {
        let names = names(registry);
        let own = names.iter().find_map(|name| self.cred_helpers.get(name));
        if let Some(helper) = own.or(self.creds_store.as_ref()) {
            for name in &names {
                match ask(helper, name)? {
                    Some(Answer { username, secret: _ }) if username == "<token>" => bail!(IDENTITY_TOKEN),
                    Some(Answer { username, secret }) => return Ok(RegistryAuth::Basic(username, secret)),
                    None => {}
                }
            }
        }
        let entry = names.iter().find_map(|name| self.auths.iter().find(|(key, _)| host(key) == host(name)));
        entry.map_or(Ok(RegistryAuth::Anonymous), |(_, entry)| entry.answer())
    }
}

impl Entry {
    fn answer(&self) -> anyhow::Result<RegistryAuth> {
        let Self { auth, username, password, identitytoken, registrytoken } = self;
        if let Some(token) = registrytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(RegistryAuth::Bearer(token.clone()));
        }
        if identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
            bail!(IDENTITY_TOKEN);
        }
        if let Some(auth) = auth.as_ref().filter(|auth| !auth.is_empty()) {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = text.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) = pair.context("it is damaged; log in again with docker login")?;
            return Ok(RegistryAuth::Basic(username.to_owned(), password.trim_end_matches('\0').to_owned()));
        }
        match (username, password) {
            (Some(username), Some(password)) => Ok(RegistryAuth::Basic(username.clone(), password.clone())),
            (Some(_), None) | (None, _) => Ok(RegistryAuth::Anonymous),
        }
    }
}

/// Docker Hub is filed under the address of an API that is gone.
fn names(registry: &str) -> Vec<String> {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => {
            vec!["https://index.docker.io/v1/".into(), "index.docker.io".into(), "docker.io".into()]
        }
        other => vec![other.to_owned()],
    }
}

/// Keys are hosts, or URLs of older versions.
fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or(key)
}

/// `None` when the helper has nothing for it.
fn ask_helper(helper: &str, registry: &str) -> anyhow::Result<Option<Answer>> {
    if !helper.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        bail!("'{helper}' is not the name of a credential helper");
    }
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        // A configuration that came from another machine; the registry may want no credential at all.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("warning: docker's configuration names {program}, which is not installed; going on without it");
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("failed to start {program}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(registry.as_bytes()).with_context(|| format!("failed to ask {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("failed to ask {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("not found") {
            return Ok(None);
        }
        bail!("{program} failed; run `echo {registry} | {program} get` to see why");
    }
    let answer = serde_json::from_slice(&output.stdout).ok();
    answer.map(Some).with_context(|| format!("{program} said something else than a credential"))
}

#[cfg(test)]
mod tests;
