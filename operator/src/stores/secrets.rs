//! Reads the Secrets that models name, one by one and again before they are old: they are never listed or watched.
//! Keeps the few keys that stores ask for, in memory only; does not know what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use easel_crds::ImageModel;
use futures::StreamExt;
use k8s_openapi::api::core::v1;
use kube::Client;
use kube::api::Api;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use super::access::KEYS;
use crate::index::Observed;

/// A credential that was rotated reaches the pods within this time and a moment.
const EVERY: Duration = Duration::from_secs(20);
/// Changes come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Reads at once.
const AT_ONCE: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What was found under a name.
#[derive(Clone, PartialEq, Eq)]
pub enum Contents {
    Found(BTreeMap<String, Vec<u8>>),
    Absent,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(_) => f.write_str("***"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// All that models name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Each that was named when this leader began was asked for.
    pub complete: bool,
    pub read: BTreeMap<SecretKey, Contents>,
}

/// One a term.
pub struct SecretsReader {
    pub client: Client,
    pub observed: watch::Receiver<Arc<Observed>>,
    pub secrets: watch::Sender<Arc<Secrets>>,
}

impl fmt::Debug for SecretsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsReader").finish_non_exhaustive()
    }
}

impl SecretsReader {
    /// Until it is dropped.
    pub async fn run(mut self) {
        let mut due_at: BTreeMap<SecretKey, Instant> = BTreeMap::new();
        let mut again = tokio::time::interval(EVERY / 4);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.observed.changed() => if changed.is_err() { return },
                _ = again.tick() => {}
            }
            let observed = self.observed.borrow_and_update().clone();
            if !observed.complete {
                continue;
            }
            let wanted: BTreeSet<SecretKey> = observed.models.values().flat_map(|model| keys(model)).collect();
            due_at.retain(|key, _| wanted.contains(key));
            let now = Instant::now();
            let due = due(&wanted, &due_at, now);
            // What could not be read is tried again sooner.
            due_at.extend(due.iter().map(|key| (key.clone(), now + EVERY / 4)));
            let read = self.read(due).await;
            due_at.extend(read.iter().map(|(key, _)| (key.clone(), now + EVERY)));
            self.publish(&wanted, read);
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn read(&self, due: Vec<SecretKey>) -> Vec<(SecretKey, Contents)> {
        let read = async |key: SecretKey| Some((key.clone(), self.get(&key).await?));
        let reads = futures::stream::iter(due).map(read).buffer_unordered(AT_ONCE);
        reads.filter_map(std::future::ready).collect().await
    }

    /// `None` when it can't be known now: what was read last stays true.
    async fn get(&self, key: &SecretKey) -> Option<Contents> {
        let api: Api<v1::Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        match tokio::time::timeout(TIMEOUT, api.get_opt(&key.name)).await {
            Ok(Ok(Some(secret))) => Some(contents(secret)),
            Ok(Ok(None)) => Some(Contents::Absent),
            Ok(Err(error)) => {
                warn!(secret = %key, %error, "failed to read a model's Secret");
                None
            }
            Err(_) => {
                warn!(secret = %key, seconds = TIMEOUT.as_secs(), "a model's Secret was not read in time");
                None
            }
        }
    }

    fn publish(&self, wanted: &BTreeSet<SecretKey>, read: Vec<(SecretKey, Contents)>) {
        self.secrets.send_if_modified(|held| {
            let mut now = Secrets { complete: true, read: held.read.clone() };
            now.read.retain(|key, _| wanted.contains(key));
            now.read.extend(read);
            let changed = **held != now;
            if changed {
                *held = Arc::new(now);
            }
            changed
        });
    }
}

/// The Secrets that a model names, for its checkpoint and its adapters.
fn keys(model: &ImageModel) -> Vec<SecretKey> {
    let Some(namespace) = &model.metadata.namespace else { return Vec::new() };
    let adapters = model.spec.adapters.iter().filter_map(|adapter| adapter.secret_ref.as_ref());
    let named = model.spec.checkpoint.secret_ref.iter().chain(adapters);
    named.map(|secret| SecretKey { namespace: namespace.clone(), name: secret.name.clone() }).collect()
}

/// New ones at once, the others when they are old.
fn due(wanted: &BTreeSet<SecretKey>, due_at: &BTreeMap<SecretKey, Instant>, now: Instant) -> Vec<SecretKey> {
    wanted.iter().filter(|key| due_at.get(key).is_none_or(|at| *at <= now)).cloned().collect()
}

fn contents(secret: v1::Secret) -> Contents {
    let data = secret.data.unwrap_or_default().into_iter();
    Contents::Found(data.filter(|(key, _)| KEYS.contains(&key.as_str())).map(|(key, value)| (key, value.0)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{model, read, with};

    fn named(name: &str) -> SecretKey {
        SecretKey { namespace: "art".into(), name: name.into() }
    }

    #[test]
    fn a_secret_is_read_at_once_and_again_before_it_is_half_a_minute_old() {
        let (wanted, now) = ([named("a"), named("b")].into(), Instant::now());
        let due_at = [(named("a"), now + EVERY)].into();
        assert_eq!(due(&wanted, &due_at, now), [named("b")]);
        assert_eq!(due(&wanted, &due_at, now + EVERY), [named("a"), named("b")]);
        assert!(EVERY + EVERY / 4 <= Duration::from_secs(30));
    }

    #[test]
    fn a_model_names_a_secret_of_its_own_namespace_only() {
        let naming = with(model("art", "m"), json!({"checkpoint": {"uri": "s3://b", "secretRef": {"name": "a"}}}));
        assert_eq!((keys(&naming), keys(&model("art", "m"))), (vec![named("a")], Vec::new()));
        let adapter = json!({"name": "ink", "uri": "s3://b", "digest": "d", "secretRef": {"name": "c"}});
        assert_eq!(keys(&with(naming, json!({"adapters": [adapter]}))), [named("a"), named("c")]);
    }

    #[test]
    fn of_a_secret_only_the_known_keys_are_kept_and_no_debug_text_shows_them() {
        let secret = read(json!({"data": {"username": "bWU=", "tls.key": "aHVudGVyMg=="}}));
        let Contents::Found(data) = contents(secret) else { panic!("it is there") };
        assert_eq!(data.keys().collect::<Vec<_>>(), ["username"]);
        assert_eq!(format!("{:?}", Contents::Found(data)), "***");
    }
}
