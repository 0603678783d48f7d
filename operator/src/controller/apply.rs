//! Writes a workload to the API server, or removes it: the `apply` step.
//! Writes only what differs from what is there, by server-side apply, at the version that was seen.

use std::fmt::Debug;
use std::time::Instant;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use super::Context;
use super::build::{Children, Wanted};
use crate::identity::IssueError;
use crate::names::{LABEL_WORKLOAD, OPERATOR, Workload};

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("failed to {step} {kind} {namespace}/{name}")]
    Kube { step: &'static str, kind: &'static str, namespace: String, name: String, source: Box<kube::Error> },
    #[error("failed to make the pods' certificate")]
    Issue(#[from] IssueError),
}

impl ApplyError {
    pub(super) fn is_conflict(&self) -> bool {
        let source = match self {
            Self::Kube { source, .. } | Self::Issue(IssueError::Kube { source, .. }) => source,
            Self::Issue(IssueError::Sign { .. } | IssueError::BrokenAuthority(_)) => return false,
        };
        matches!(&**source, kube::Error::Api(status) if status.is_conflict())
    }
}

/// All of a workload. The certificate comes first, because pods mount it.
pub(super) async fn apply(
    ctx: &Context,
    wanted: &Wanted,
    children: Children,
    observed: Option<&Deployment>,
) -> Result<(), ApplyError> {
    let Children { deployment, disruption, network, claim } = children;
    ensure_certificate(ctx, wanted).await?;
    apply_once(ctx, &network).await?;
    apply_once(ctx, &disruption).await?;
    if let Some(claim) = &claim {
        apply_once(ctx, claim).await?;
    }
    let mut patch = document(&deployment);
    if observed.is_some_and(|observed| contains(&document(observed), &patch)) {
        return Ok(());
    }
    if let Some(version) = observed.and_then(|observed| observed.metadata.resource_version.clone()) {
        patch["metadata"]["resourceVersion"] = Value::String(version);
    }
    write::<Deployment>(ctx, &patch, wanted.workload.namespace(), &wanted.workload.deployment()).await
}

async fn ensure_certificate(ctx: &Context, wanted: &Wanted) -> Result<(), ApplyError> {
    let key = ("Secret", wanted.workload.namespace().to_owned(), wanted.workload.deployment());
    let (now, contents) = (Instant::now(), wanted.owner.uid.clone());
    if !ctx.memo.is_written(&key, &contents, now) {
        ctx.issuer.ensure_pods(&wanted.workload, vec![wanted.owner.clone()]).await?;
        ctx.memo.remember(key, contents, now);
    }
    Ok(())
}

/// For kinds that are not watched.
async fn apply_once<K>(ctx: &Context, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
{
    let patch = document(object);
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (key, now) = ((kind::<K>(), namespace.clone(), name.clone()), Instant::now());
    if !ctx.memo.is_written(&key, &patch.to_string(), now) {
        write::<K>(ctx, &patch, &namespace, &name).await?;
        ctx.memo.remember(key, patch.to_string(), now);
    }
    Ok(())
}

async fn write<K>(ctx: &Context, patch: &Value, namespace: &str, name: &str) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let params = PatchParams::apply(OPERATOR).force();
    let applied = api.patch(name, &params, &Patch::Apply(patch)).await;
    applied.map_err(|error| failed::<K>("apply", namespace, name, error))?;
    info!(kind = kind::<K>(), namespace, name, "applied");
    Ok(())
}

/// Everything of a workload that has no place. What is gone already is no failure.
pub(super) async fn remove(ctx: &Context, workload: &Workload) -> Result<(), ApplyError> {
    let (namespace, name) = (workload.namespace(), workload.deployment());
    let (key, now) = (("Removed", namespace.to_owned(), name.clone()), Instant::now());
    if ctx.memo.is_written(&key, "", now) {
        return Ok(());
    }
    delete::<Deployment>(ctx, namespace, &name).await?;
    delete::<PodDisruptionBudget>(ctx, namespace, &name).await?;
    delete::<NetworkPolicy>(ctx, namespace, &name).await?;
    delete::<Secret>(ctx, namespace, &workload.tls_secret()).await?;
    delete_claims(ctx, workload).await?;
    ctx.memo.forget(namespace, &name);
    ctx.memo.remember(key, String::new(), now);
    Ok(())
}

async fn delete<K>(ctx: &Context, namespace: &str, name: &str) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => info!(kind = kind::<K>(), namespace, name, "deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(failed::<K>("delete", namespace, name, error)),
    }
    Ok(())
}

/// Of every shape that the workload has had: their names have digests. Pods that still run keep their claims.
async fn delete_claims(ctx: &Context, workload: &Workload) -> Result<(), ApplyError> {
    let api: Api<ResourceClaimTemplate> = Api::namespaced(ctx.client.clone(), workload.namespace());
    let labelled = ListParams::default().labels(&format!("{LABEL_WORKLOAD}={}", workload.deployment()));
    match api.delete_collection(&DeleteParams::background(), &labelled).await {
        Ok(_) => Ok(()),
        // A cluster without dynamic resource allocation has none.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => {
            Err(failed::<ResourceClaimTemplate>("delete", workload.namespace(), &workload.deployment(), error))
        }
    }
}

fn failed<K: Resource<DynamicType = ()>>(
    step: &'static str,
    namespace: &str,
    name: &str,
    source: kube::Error,
) -> ApplyError {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    ApplyError::Kube { step, kind: kind::<K>(), namespace, name, source: Box::new(source) }
}

fn kind<K>() -> &'static str {
    std::any::type_name::<K>().rsplit("::").next().unwrap_or_default()
}

/// An object as JSON, with the type that server-side apply asks for.
fn document<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    value["apiVersion"] = Value::String(K::api_version(&()).into_owned());
    value["kind"] = Value::String(K::kind(&()).into_owned());
    value
}

/// Whether everything that is wanted is there. The API server adds defaults, but never to a list of ours: those must be
/// of one length. What a former version of the template had and this one has not is told by the template's digest.
fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| there.get(key).is_some_and(|there| contains(there, value)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| contains(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_that_the_server_added_are_no_difference_and_everything_else_is() {
        let there =
            json!({"spec": {"replicas": 2, "progressDeadlineSeconds": 600, "ports": [{"port": 1, "protocol": "TCP"}]}});
        for (wanted, same) in [
            (json!({"spec": {"replicas": 2, "ports": [{"port": 1}]}}), true),
            (json!({"spec": {"replicas": 3}}), false),
            (json!({"spec": {"ports": []}}), false),
            (json!({"spec": {"paused": false}}), false),
        ] {
            assert_eq!(contains(&there, &wanted), same, "{wanted}");
        }
    }
}
