//! What a pool adds to its pods, under what the operator sets: of two with one key, the operator's counts.
//! What may not be set was refused before (`Invalid::Override`); nothing here reaches a security context, a volume or a command.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;

use super::Wanted;

/// The pod's own name for the keys that its pool trusts.
const VERIFICATION_KEYS: &str = "EASEL_VERIFICATION_KEYS";

pub(super) fn labels(wanted: &Wanted) -> BTreeMap<String, String> {
    let mut labels = wanted.shape.overrides.labels.clone();
    labels.extend(wanted.workload.labels());
    labels
}

pub(super) fn annotations(wanted: &Wanted) -> Option<BTreeMap<String, String>> {
    Some(wanted.shape.overrides.annotations.clone()).filter(|annotations| !annotations.is_empty())
}

/// Keys are too long for a command line that people read.
pub(super) fn env(wanted: &Wanted) -> Option<Vec<EnvVar>> {
    let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: Some(value.into()), value_from: None };
    let keys = &wanted.shape.verification_keys;
    let mut env: Vec<EnvVar> = (!keys.is_empty()).then(|| variable(VERIFICATION_KEYS, keys)).into_iter().collect();
    env.extend(wanted.shape.overrides.env.iter().map(|own| variable(&own.name, &own.value)));
    (!env.is_empty()).then_some(env)
}
