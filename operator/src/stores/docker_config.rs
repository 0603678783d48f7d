//! Finds the login for a registry in a Docker configuration, as `kubectl create secret docker-registry` writes it.
//! Knows the forms that a registry's name has there; its errors quote nothing of what it read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Docker's own registry has many names.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Base64 of `username:password`; stronger than the two beside it.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Name and password for a repository. The error goes on after the Secret's name.
pub(super) fn login(config: &str, registry: &str, repository: &str) -> Result<(String, String), String> {
    // serde's own words would quote what stands there.
    let config: Config = serde_json::from_str(config)
        .map_err(|_| "is no Docker configuration; make it with kubectl create secret docker-registry".to_owned())?;
    let fitting = config.auths.iter().filter_map(|(key, entry)| Some((depth(key, registry, repository)?, entry)));
    let Some((_, entry)) = fitting.max_by_key(|(depth, _)| *depth) else {
        return Err(format!("has no login for registry {registry}; add one to its .dockerconfigjson"));
    };
    entry.login().ok_or_else(|| format!("has an entry for registry {registry} without username and password; add them"))
}

impl Entry {
    fn login(&self) -> Option<(String, String)> {
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            // Docker pads with zeros.
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        (!username.is_empty() && !password.is_empty()).then_some((username, password))
    }
}

/// How closely a key of `auths` names the repository: how many folders of its path it gives. `None`: another registry.
fn depth(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let named = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = named.split_once('/').unwrap_or((named, ""));
    if !same_registry(host, registry) {
        return None;
    }
    let folders: Vec<&str> = path.split('/').filter(|folder| !folder.is_empty()).collect();
    if matches!(folders.as_slice(), [] | ["v1" | "v2"]) {
        return Some(0); // an address of the API, not of a repository
    }
    let of: Vec<&str> = repository.split('/').collect();
    of.starts_with(&folders).then_some(folders.len())
}

fn same_registry(host: &str, registry: &str) -> bool {
    let hub = |name: &str| DOCKER_HUB.iter().any(|alias| alias.eq_ignore_ascii_case(name));
    host.eq_ignore_ascii_case(registry) || (hub(host) && hub(registry))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_login_is_found_by_every_form_of_a_registrys_name() {
        for (key, registry, found) in [
            ("r.example:5000", "r.example:5000", true),
            ("https://r.example:5000", "r.example:5000", true),
            ("http://R.Example:5000/v2/", "r.example:5000", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("docker.io", "registry-1.docker.io", true),
            ("r.example/team", "r.example", true),
            ("r.example/other", "r.example", false),
            ("r.example/tea", "r.example", false),
            ("r.example", "r.example:5000", false),
            ("evil-r.example", "r.example", false),
        ] {
            let config = json!({"auths": {key: {"username": "me", "password": "p"}}}).to_string();
            let expected = found.then(|| ("me".to_owned(), "p".to_owned()));
            assert_eq!(login(&config, registry, "team/m").ok(), expected, "{key}");
        }
    }

    #[test]
    fn the_nearest_of_several_logins_counts() {
        let entry = |name: &str| json!({"username": name, "password": "p"});
        let all = json!({"r.example": entry("all"), "r.example/team": entry("team"), "r.example/team/m": entry("m")});
        let config = json!({"auths": all}).to_string();
        for (repository, expected) in [("team/m", "m"), ("team/n", "team"), ("other", "all")] {
            assert_eq!(login(&config, "r.example", repository).unwrap().0, expected);
        }
    }

    #[test]
    fn the_joined_form_is_read_and_counts_more() {
        let auth = STANDARD.encode("me:pass:word");
        for entry in [json!({"auth": auth}), json!({"auth": auth, "username": "old", "password": "old"})] {
            let config = json!({"auths": {"r.example": entry}}).to_string();
            assert_eq!(login(&config, "r.example", "m"), Ok(("me".into(), "pass:word".into())));
        }
    }

    #[test]
    fn what_is_no_login_is_said_without_quoting_it() {
        for (config, words) in [
            ("hunter2".to_owned(), "is no Docker configuration"),
            (json!({"auths": "hunter2"}).to_string(), "is no Docker configuration"),
            (json!({"credsStore": "hunter2"}).to_string(), "has no login for registry r.example"),
            (json!({"auths": {"r.example": {"auth": "hunter2"}}}).to_string(), "without username and password"),
            (json!({"auths": {"r.example": {"username": "hunter2"}}}).to_string(), "without username and password"),
        ] {
            let refused = login(&config, "r.example", "m").unwrap_err();
            assert!(refused.contains(words) && !refused.contains("hunter2"), "{refused}");
        }
    }
}
