//! Builds what a workload is in Kubernetes: Deployment, disruption budget, network policy, claim of devices. The `build` step: pure.
//! Knows shapes and names; reads nothing and writes nothing.

mod claim;
mod egress;
mod overrides;
mod template;
mod volumes;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::shape::Shape;
use crate::index::ENGINE_PORT;
use crate::names::{LABEL_NAME, OPERATOR, Workload};
use crate::wire::Volume;
pub use egress::StoreEgress;

/// Probes, for the kubelet.
const PROBES_PORT: u16 = 8081;
const METRICS_PORT: u16 = 9090;
/// Templates that `kubectl rollout undo` can go back to; what it would undo, the operator does again.
const HISTORY: i32 = 2;

/// What every pod has from the operator's own flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The operator's: Shared pods live there, and only its pods may call any.
    pub namespace: String,
    pub image: String,
    pub pull_policy: String,
    /// Where pods find checkpoints.
    pub stores: Vec<StoreEgress>,
}

/// One workload as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub workload: Workload,
    pub owner: OwnerReference,
    pub shape: Shape,
    pub replicas: u32,
    /// With the checkpoint.
    pub volume: Option<Volume>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Children {
    pub deployment: Deployment,
    pub disruption: PodDisruptionBudget,
    pub network: NetworkPolicy,
    /// Of devices that are claimed.
    pub claim: Option<ResourceClaimTemplate>,
}

pub(super) fn build(wanted: &Wanted, settings: &Settings) -> Children {
    Children {
        deployment: deployment(wanted, settings),
        disruption: disruption(wanted),
        network: network(wanted, settings),
        claim: claim::template(wanted),
    }
}

fn deployment(wanted: &Wanted, settings: &Settings) -> Deployment {
    Deployment {
        metadata: metadata(wanted),
        spec: DeploymentSpec {
            replicas: Some(i32::try_from(wanted.replicas).unwrap_or(i32::MAX)),
            selector: selector(wanted),
            template: template::template(wanted, settings),
            revision_history_limit: Some(HISTORY),
            // A new pod must answer before an old one goes.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

/// One at a time: a drain goes on even when there is only one replica, and never takes two.
fn disruption(wanted: &Wanted) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(wanted),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(wanted)),
            // A pod that never became ready protects nobody.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// In: the engine from the operator's pods only, probes and metrics from anywhere in the cluster. Out: names, and the
/// stores that the operator was told of; volumes are the node's to mount.
fn network(wanted: &Wanted, settings: &Settings) -> NetworkPolicy {
    let labels = |key: &str, value: &str| LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(labels("kubernetes.io/metadata.name", &settings.namespace)),
        pod_selector: Some(labels(LABEL_NAME, OPERATOR)),
        ..NetworkPolicyPeer::default()
    };
    let engine = NetworkPolicyIngressRule { from: Some(vec![operator]), ports: Some(vec![port(ENGINE_PORT)]) };
    let open = NetworkPolicyIngressRule { from: None, ports: Some(vec![port(PROBES_PORT), port(METRICS_PORT)]) };
    NetworkPolicy {
        metadata: metadata(wanted),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(wanted)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![engine, open]),
            egress: egress::rules(&settings.stores),
        }),
    }
}

/// As a quantity, in the form that the API server keeps, so that what is there compares equal.
fn bytes(bytes: u64) -> String {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];
    let (unit, size) = units.into_iter().find(|(_, size)| bytes.is_multiple_of(*size)).unwrap_or(("", 1));
    format!("{}{unit}", bytes / size)
}

fn port(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(port.into())), protocol: Some("TCP".into()), end_port: None }
}

/// Deployment, budget and policy have one name.
fn metadata(wanted: &Wanted) -> ObjectMeta {
    ObjectMeta {
        name: Some(wanted.workload.deployment()),
        namespace: Some(wanted.workload.namespace().to_owned()),
        labels: Some(wanted.workload.labels()),
        owner_references: Some(vec![wanted.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn selector(wanted: &Wanted) -> LabelSelector {
    LabelSelector { match_labels: Some(wanted.workload.selector()), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests;
