//! Reads one client identity and keeps it fresh: every replica's part.
//! The Secret may not exist yet, and changes while the process runs; the client is swapped without a pause.

use easel_api::identity::Identity;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::secret;
use crate::names::identity_secret;
use crate::pod_client::{Credentials, CredentialsError, PodClient};

/// An identity that is there.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Always calls with the newest credentials.
    pub client: PodClient,
    /// The same, to serve with.
    pub credentials: watch::Receiver<Credentials>,
}

/// Sends the identity once the Secret is there, and keeps it fresh until it is dropped.
pub async fn keep(client: Client, namespace: &str, identity: Identity, first: oneshot::Sender<Kept>) {
    let name = identity_secret(&identity);
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let secrets = watcher(api, config).default_backoff().applied_objects();
    let mut secrets =
        std::pin::pin!(secrets.inspect_err(|error| warn!(%identity, %error, "failed to watch the identity")));
    let mut keeper = Keeper { held: None, first: Some(first) };
    while let Some(found) = secrets.next().await {
        if let Ok(secret) = found {
            keeper.take(&identity, &secret);
        }
    }
}

struct Keeper {
    held: Option<(PodClient, watch::Sender<Credentials>)>,
    first: Option<oneshot::Sender<Kept>>,
}

impl Keeper {
    fn take(&mut self, identity: &Identity, found: &Secret) {
        let Some(credentials) = secret::credentials(found) else {
            warn!(%identity, "the identity's secret is incomplete");
            return;
        };
        if let Err(error) = self.use_now(credentials) {
            warn!(%identity, %error, "failed to use the identity");
            return;
        }
        info!(%identity, "identity loaded");
    }

    fn use_now(&mut self, new: Credentials) -> Result<(), CredentialsError> {
        if let Some((client, credentials)) = &self.held {
            client.replace(&new)?;
            credentials.send_replace(new);
            return Ok(());
        }
        let client = PodClient::new(&new)?;
        let (sender, credentials) = watch::channel(new);
        self.held = Some((client.clone(), sender));
        if let Some(first) = self.first.take() {
            first.send(Kept { client, credentials }).ok(); // the process is stopping when nobody waits
        }
        Ok(())
    }
}
