//! What is known of a model's adapters: with every replica, on their way, or refused, and why.
//! A function of what pods say; no part of whether the model is ready.

use easel_api::engine::{AdapterReport, AdapterState};
use easel_crds::condition::{ConditionType, Reason};

use super::super::conditions::{Finding, Is};
use super::Shown;
use super::checkpoint::{is_current, reason_of, said};
use crate::stores::Credential;

/// `None` for a model without adapters.
pub(super) fn available(shown: &Shown<'_>, digest: Option<&str>) -> Option<Finding> {
    let Shown { id, model, view, found: _ } = *shown;
    if model.spec.adapters.is_empty() {
        return None;
    }
    let finding = |is, reason, message: String| Some(Finding::new(ConditionType::AdaptersReady, is, reason, message));
    let credentials = view.known.adapters.get(id).into_iter().flatten();
    for (name, credential) in credentials {
        if let Credential::Missing(message) = credential {
            return finding(Is::False, Reason::SecretNotFound, format!("'{name}': {message}"));
        }
    }
    let reports = || {
        let current = said(id, digest.unwrap_or_default(), view).filter(|(replica, _, _)| is_current(replica, view));
        current.flat_map(|(_, pod, report)| report.adapters.iter().map(move |adapter| (pod, adapter)))
    };
    for (pod, AdapterReport { name, digest: _, state }) in reports() {
        if let AdapterState::Refused { reason, message } = state {
            return finding(Is::False, reason_of(*reason), format!("'{name}' in {}: {message}", pod.name));
        }
    }
    let has = |name: &str, is_there: fn(&AdapterState) -> bool| {
        let mut of_it = reports().filter(|(_, adapter)| adapter.name == name).peekable();
        of_it.peek().is_some() && of_it.all(|(_, adapter)| is_there(&adapter.state))
    };
    let is_there = |state: &AdapterState| matches!(state, AdapterState::OnDisk | AdapterState::InMemory { .. });
    let names = model.spec.adapters.iter().map(|adapter| adapter.name.as_str());
    let missing: Vec<&str> = names.filter(|name| !has(name, is_there)).collect();
    match missing[..] {
        [] => finding(Is::True, Reason::Available, "requests may name every adapter".into()),
        _ => finding(Is::Unknown, Reason::Fetching, format!("replicas are without {}", missing.join(", "))),
    }
}
