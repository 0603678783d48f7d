//! What users may add to a pool's pods: a bounded part of a pod template that can't loosen what the operator sets.
//! Lists what is refused; how it is merged is the operator's.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Beside what the operator gives each pod. Security contexts, volumes, commands, ports and resources are the operator's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(key, !key.startsWith('easel.dev/') && !key.startsWith('app.kubernetes.io/'))").message("podOverrides.labels must not begin with easel.dev/ or app.kubernetes.io/: the operator finds its pods by them"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(key, !key.startsWith('easel.dev/') && !key.startsWith('controller.kubernetes.io/') && !key.startsWith('kubernetes.io/') && !key.startsWith('container.apparmor.security.beta.kubernetes.io/') && !key.startsWith('seccomp.security.alpha.kubernetes.io/') && !key.startsWith('container.seccomp.security.alpha.kubernetes.io/'))").message("podOverrides.annotations must not begin with easel.dev/, controller.kubernetes.io/, kubernetes.io/ or a seccomp or AppArmor prefix: they are the operator's, or would loosen Pod Security"),
)]
pub struct PodOverrides {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Of the pods' own namespace: the operator's for Shared models, the model's for Dedicated ones. Its token is not
    /// mounted; it is for pull secrets and admission policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub service_account_name: Option<String>,
    /// Such as `nvidia`, where the container runtime needs it to see devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(max = 253))]
    pub runtime_class_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvOverride>,
}

/// A variable of the container's environment, such as `NCCL_DEBUG` or `HTTPS_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvOverride {
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"), length(max = 128))]
    #[x_kube(validation = Rule::new("!self.startsWith('EASEL_') && !self.startsWith('LD_')").message("podOverrides.env must not begin with EASEL_ (the pod's own settings) or LD_ (what is loaded before the program)"))]
    pub name: String,
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Prefixes of labels that the operator finds its pods by.
const LABELS: [&str; 2] = ["easel.dev/", "app.kubernetes.io/"];
/// Prefixes of annotations that are the operator's or Kubernetes' own, or that loosen what a container may do.
const ANNOTATIONS: [&str; 6] = [
    "easel.dev/",
    "controller.kubernetes.io/",
    "kubernetes.io/",
    "container.apparmor.security.beta.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
];
const ENV: [&str; 2] = ["EASEL_", "LD_"];

impl PodOverrides {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first key that may not be set. The schema refuses it as well; this is for what an older schema let through.
    pub fn forbidden(&self) -> Option<&str> {
        let begins = |prefixes: &[&str], key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let label = self.labels.keys().find(|key| begins(&LABELS, key));
        let annotation = self.annotations.keys().find(|key| begins(&ANNOTATIONS, key));
        let env = self.env.iter().map(|env| &env.name).find(|name| begins(&ENV, name));
        label.or(annotation).or(env).map(String::as_str)
    }
}
