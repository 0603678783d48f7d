//! Names that Easel gives: labels, Deployments, Secrets, the Lease.
//! Only text; what is made of it is decided elsewhere.

use std::collections::BTreeMap;

use easel_api::identity::{Deployment, Identity};
use easel_planner::ModelId;

/// Who writes: the field manager of every apply, the reporter of every event, and the Lease.
pub const OPERATOR: &str = "easel-operator";
/// `app.kubernetes.io/name` of the pods that draw.
pub const INFERENCE: &str = "easel-inference";
/// `app.kubernetes.io/managed-by` of everything that the operator makes.
pub const MANAGED_BY: &str = "easel";

pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The Deployment's name: the one label that selects its pods, and nobody else's.
pub const LABEL_WORKLOAD: &str = "easel.dev/workload";
pub const LABEL_POOL: &str = "easel.dev/pool";
/// On Dedicated pods only.
pub const LABEL_MODEL: &str = "easel.dev/model";
/// Digest of the pod template that a pod was made from.
pub const LABEL_TEMPLATE: &str = "easel.dev/template";

/// Holds a GpuPool until its last replica is gone.
pub const FINALIZER: &str = "easel.dev/drain";

/// The Secret of the certificate authority, in the operator's namespace.
pub const CA_SECRET: &str = "easel-ca";

/// The Secret with the certificate of an identity: in the operator's namespace, or in that of the pods.
pub fn identity_secret(identity: &Identity) -> String {
    match identity {
        Identity::Operator | Identity::Gateway => format!("easel-identity-{identity}"),
        Identity::Pods(Deployment { namespace: _, name }) => format!("{name}-tls"),
    }
}

/// Whose pods a Deployment runs. Kinds have their own prefix, so that a pool and a model of one name, or a pool named
/// `operator`, never write one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Of a pool, in the operator's namespace.
    Shared { pool: String, namespace: String },
    /// Of one model, in its namespace.
    Dedicated { model: String, namespace: String },
}

impl Workload {
    pub fn deployment(&self) -> String {
        match self {
            Self::Shared { pool, .. } => format!("easel-pool-{pool}"),
            Self::Dedicated { model, .. } => format!("easel-model-{model}"),
        }
    }

    /// Of the Deployment of this name; `None` for one that is not ours.
    pub fn of(namespace: &str, deployment: &str) -> Option<Self> {
        let namespace = namespace.to_owned();
        if let Some(pool) = deployment.strip_prefix("easel-pool-") {
            return Some(Self::Shared { pool: pool.to_owned(), namespace });
        }
        let model = deployment.strip_prefix("easel-model-")?.to_owned();
        Some(Self::Dedicated { model, namespace })
    }

    pub fn namespace(&self) -> &str {
        match self {
            Self::Shared { namespace, .. } | Self::Dedicated { namespace, .. } => namespace,
        }
    }

    /// Whose certificate its pods have.
    pub fn identity(&self) -> Identity {
        Identity::Pods(Deployment { namespace: self.namespace().to_owned(), name: self.deployment() })
    }

    /// The Secret with the certificate of its pods.
    pub fn tls_secret(&self) -> String {
        identity_secret(&self.identity())
    }

    /// Immutable in Kubernetes, so as small as can be.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [(LABEL_WORKLOAD.to_owned(), self.deployment())].into()
    }

    /// On every object that belongs to it.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert(LABEL_NAME.into(), INFERENCE.into());
        labels.insert(LABEL_MANAGED_BY.into(), MANAGED_BY.into());
        labels
    }
}

/// Selects what the operator has made.
pub fn managed_selector() -> String {
    format!("{LABEL_MANAGED_BY}={MANAGED_BY}")
}

/// Selects the pods of the control plane in the operator's namespace: every one runs a gateway.
pub fn control_plane_selector() -> String {
    format!("{LABEL_PART_OF}={MANAGED_BY}")
}

/// Namespace and name of a model; the planner keeps them as one text.
pub fn split(id: &ModelId) -> (&str, &str) {
    id.as_str().split_once('/').unwrap_or(("", id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workloads_of_one_namespace_share_a_name_or_take_the_operators() {
        let namespace = "easel-system".to_owned();
        let pool = Workload::Shared { pool: "operator".into(), namespace: namespace.clone() };
        let model = Workload::Dedicated { model: "operator".into(), namespace };
        assert_ne!(pool.deployment(), model.deployment());
        assert!([&pool, &model].iter().all(|workload| workload.deployment() != OPERATOR));
    }

    #[test]
    fn a_deployment_tells_whose_pods_it_runs() {
        let namespace = "n".to_owned();
        let pool = Workload::Shared { pool: "cpu".into(), namespace: namespace.clone() };
        let model = Workload::Dedicated { model: "m".into(), namespace };
        for workload in [pool, model] {
            assert_eq!(Workload::of("n", &workload.deployment()), Some(workload));
        }
        assert_eq!(Workload::of("n", OPERATOR), None);
    }

    #[test]
    fn the_longest_name_is_still_a_label() {
        let workload = Workload::Dedicated { model: "m".repeat(40), namespace: "n".into() };
        assert!(workload.tls_secret().len() <= 63);
    }
}
