//! Removes what uninstalling would leave behind; a Helm hook runs it before the operator goes.
//! Does each step however often it is run; what users wrote (pools, models) stays.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use easel_api::identity::Identity;
use easel_crds::GpuPool;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use crate::cli::CleanupArgs;
use crate::controller::strip_finalizer;
use crate::names::{CA_SECRET, OPERATOR, identity_secret, managed_selector};

const POLL: Duration = Duration::from_secs(1);

pub async fn run(args: CleanupArgs) -> anyhow::Result<()> {
    let CleanupArgs { namespace, stop, stop_seconds } = args;
    let client = Client::try_default().await.context("failed to configure the API client")?;
    for name in &stop {
        stop_deployment(&client, &namespace, name, Duration::from_secs(stop_seconds)).await?;
    }
    remove_workloads(&client).await?;
    release_pools(&client).await?;
    for secret in [CA_SECRET.to_owned()].into_iter().chain(Identity::CONTROL.iter().map(identity_secret)) {
        delete::<Secret>(&client, &namespace, &secret).await?;
    }
    delete::<Lease>(&client, &namespace, OPERATOR).await
}

/// Nobody may make again what is removed.
async fn stop_deployment(client: &Client, namespace: &str, name: &str, timeout: Duration) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match api.patch_scale(name, &PatchParams::default(), &patch).await {
        Ok(_) => info!(deployment = name, "stopping"),
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("failed to scale deployment {name}")),
    }
    let begun = Instant::now();
    loop {
        let scale = api.get_scale(name).await.with_context(|| format!("failed to read the scale of {name}"))?;
        let Some(status) = scale.status else { return Ok(()) };
        if status.replicas == 0 && gone(client, namespace, status.selector.as_deref()).await? {
            return Ok(());
        }
        if begun.elapsed() > timeout {
            bail!("deployment {name} has not stopped in {} s; stop it and run this again", timeout.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A Deployment does not count pods that are ending, and one of them may lead until its last moment.
async fn gone(client: &Client, namespace: &str, selector: Option<&str>) -> anyhow::Result<bool> {
    let Some(selector) = selector else { return Ok(true) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let left =
        pods.list(&ListParams::default().labels(selector)).await.context("failed to list the operator's pods")?;
    Ok(left.items.is_empty())
}

/// Deployments of all namespaces, with what has their name.
async fn remove_workloads(client: &Client) -> anyhow::Result<()> {
    let all: Api<Deployment> = Api::all(client.clone());
    let ours = ListParams::default().labels(&managed_selector());
    for deployment in all.list(&ours).await.context("failed to list deployments")? {
        let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
        delete::<Deployment>(client, &namespace, &name).await?;
        delete::<PodDisruptionBudget>(client, &namespace, &name).await?;
        delete::<NetworkPolicy>(client, &namespace, &name).await?;
        delete::<Secret>(client, &namespace, &format!("{name}-tls")).await?;
    }
    Ok(())
}

async fn release_pools(client: &Client) -> anyhow::Result<()> {
    let pools: Api<GpuPool> = Api::all(client.clone());
    let found = match pools.list(&ListParams::default()).await {
        Ok(found) => found,
        // The CRDs went first, and the pools with them.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error).context("failed to list pools"),
    };
    for pool in found {
        strip_finalizer(&pools, &pool).await.with_context(|| format!("failed to release pool {}", pool.name_any()))?;
        info!(pool = pool.name_any(), "released");
    }
    Ok(())
}

async fn delete<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => info!(kind = %K::kind(&()), namespace, name, "deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => {
            return Err(error).with_context(|| format!("failed to delete {} {namespace}/{name}", K::kind(&())));
        }
    }
    Ok(())
}
