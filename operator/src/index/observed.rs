//! What exists, as this process last heard: objects of the API server, and what pods say of themselves.
//! Parses pods once; a pod that is not where its labels say is nobody's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use easel_api::engine::Report;
use easel_crds::{GpuPool, ImageModel, ImageRoute};
use easel_planner::snapshot::Tenancy;
use easel_planner::{ModelId, PoolName, ReplicaId, RouteId};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::Demands;
use crate::names::{LABEL_MODEL, LABEL_POOL, LABEL_TEMPLATE, LABEL_WORKLOAD, Workload};

/// Namespace and name.
pub(super) type Key = (String, String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Everything was listed once.
    pub complete: bool,
    pub pools: BTreeMap<PoolName, Arc<GpuPool>>,
    pub models: BTreeMap<ModelId, Arc<ImageModel>>,
    pub routes: BTreeMap<RouteId, Arc<ImageRoute>>,
    pub deployments: BTreeMap<Key, Arc<Deployment>>,
    pub pods: BTreeMap<ReplicaId, Arc<ObservedPod>>,
    /// Of pods that are being listened to.
    pub reports: BTreeMap<ReplicaId, Arc<Report>>,
    /// At all gateways together. On the leader only; nobody else hears it.
    pub demand: Arc<Demands>,
}

/// A pod that draws, or will.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedPod {
    pub uid: String,
    pub name: String,
    pub workload: Workload,
    pub pool: PoolName,
    pub tenancy: Tenancy,
    pub template: Option<String>,
    pub address: Option<IpAddr>,
    /// Deletion was asked for.
    pub leaving: bool,
    /// By its readiness probe.
    pub ready: bool,
    /// Why it does not start, in the kubelet's or the scheduler's words.
    pub trouble: Option<String>,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: Option<String>,
}

pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl ObservedPod {
    /// `None` for a pod that has ended, or that carries our labels in a place where we make no such pod: whoever may
    /// create pods in one namespace must not take a seat in another's plan.
    pub fn parse(pod: &Pod, operator_namespace: &str) -> Option<(ReplicaId, Self)> {
        let status = pod.status.as_ref();
        if status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
        {
            return None;
        }
        let (namespace, name) = (pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?);
        let labels = pod.metadata.labels.as_ref()?;
        let pool = labels.get(LABEL_POOL)?;
        let workload = match labels.get(LABEL_MODEL) {
            Some(model) => Workload::Dedicated { model: model.clone(), namespace: namespace.to_owned() },
            None if namespace == operator_namespace => {
                Workload::Shared { pool: pool.clone(), namespace: namespace.to_owned() }
            }
            None => return None,
        };
        if labels.get(LABEL_WORKLOAD) != Some(&workload.deployment()) {
            return None;
        }
        let parsed = Self {
            uid: pod.metadata.uid.clone()?,
            name: name.to_owned(),
            tenancy: tenancy(&workload),
            workload,
            pool: PoolName::new(pool),
            template: labels.get(LABEL_TEMPLATE).cloned(),
            address: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
            leaving: pod.metadata.deletion_timestamp.is_some(),
            ready: status.is_some_and(|status| condition(status, "Ready").is_some_and(|(is, _)| is == "True")),
            trouble: status.and_then(trouble),
            deletion_cost: pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST).cloned()),
        };
        Some((ReplicaId::new(format!("{namespace}/{name}")), parsed))
    }
}

impl Observed {
    pub fn deployment(&self, workload: &Workload) -> Option<&Arc<Deployment>> {
        self.deployments.get(&(workload.namespace().to_owned(), workload.deployment()))
    }

    /// Digest of the template that a workload's pods shall be made from.
    pub fn template(&self, workload: &Workload) -> Option<&str> {
        let template = &self.deployment(workload)?.spec.template;
        template.metadata.as_ref()?.labels.as_ref()?.get(LABEL_TEMPLATE).map(String::as_str)
    }

    /// Why a workload's pods are not even made, in the API server's words: a quota, a policy.
    pub fn replica_failure(&self, workload: &Workload) -> Option<&str> {
        let conditions = self.deployment(workload)?.status.as_ref()?.conditions.as_ref()?;
        let failed = |condition: &&DeploymentCondition| {
            condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
        };
        conditions.iter().find(failed)?.message.as_deref()
    }

    pub fn pods_of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = (&'a ReplicaId, &'a ObservedPod)> {
        self.pods.iter().filter(move |(_, pod)| pod.workload == *workload).map(|(id, pod)| (id, &**pod))
    }
}

fn tenancy(workload: &Workload) -> Tenancy {
    match workload {
        Workload::Dedicated { model, namespace } => Tenancy::Dedicated(ModelId::new(format!("{namespace}/{model}"))),
        Workload::Shared { .. } => Tenancy::Shared,
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.message.as_deref().unwrap_or_default()))
}

/// States that do not mend themselves within moments.
fn trouble(status: &PodStatus) -> Option<String> {
    if let Some(("False", message)) = condition(status, "PodScheduled") {
        return Some(format!("is not scheduled: {message}"));
    }
    status.container_statuses.iter().flatten().find_map(container_trouble)
}

fn container_trouble(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(format!("{reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{changed_pod, shared_pod};

    fn parse(pod: &Pod) -> Option<ObservedPod> {
        ObservedPod::parse(pod, "easel-system").map(|(_, pod)| pod)
    }

    #[test]
    fn a_shared_pod_is_one_of_the_operators_namespace() {
        let pod = parse(&shared_pod("a", "cpu", "10.0.0.1")).unwrap();
        assert_eq!((pod.pool.as_str(), &pod.tenancy, pod.ready), ("cpu", &Tenancy::Shared, true));
        assert_eq!(pod.address, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_pod_that_only_pretends_is_nobodys() {
        let stranger =
            |metadata: Value| changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &json!({"metadata": metadata}));
        assert_eq!(parse(&stranger(json!({"namespace": "art"}))), None);
        assert_eq!(parse(&stranger(json!({"labels": {"easel.dev/workload": "easel-pool-other"}}))), None);
        let dedicated =
            json!({"namespace": "art", "labels": {"easel.dev/model": "m", "easel.dev/workload": "easel-model-m"}});
        let pod = parse(&stranger(dedicated)).unwrap();
        assert_eq!(pod.tenancy, Tenancy::Dedicated(ModelId::new("art/m")));
    }

    #[test]
    fn a_pod_that_has_ended_is_gone() {
        let ended = changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &json!({"status": {"phase": "Failed"}}));
        assert_eq!(parse(&ended), None);
    }

    #[test]
    fn trouble_is_told_in_the_words_of_who_has_it() {
        for (status, expected) in [
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes have a GPU"}]}),
                Some("is not scheduled: 0/3 nodes have a GPU"),
            ),
            (
                json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]}),
                Some("ErrImagePull: no such image"),
            ),
            (
                json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ContainerCreating"}}}]}),
                None,
            ),
        ] {
            let status: PodStatus = crate::testing::read(status);
            assert_eq!(trouble(&status).as_deref(), expected);
        }
    }
}
