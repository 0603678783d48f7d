//! Shows what became of an object: its status, and an event for every condition that turned. The `status` step.
//! Writes only what changed, so that a status never causes the next one.

pub(super) mod conditions;
pub(super) mod model;
pub(super) mod pool;
pub(super) mod route;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::warn;

use super::{Context, Error};
use crate::names::OPERATOR;
use conditions::is_warning;

/// An event's bound, of bytes.
const MAX_NOTE: usize = 1000;

/// Conditions that this leader wrote last. What a reconcile reads may be a moment older than its own last write, and a
/// condition would seem to turn again.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<String, Vec<Condition>>>);

impl Written {
    /// The conditions before this one: those that were written last, or else those that are there.
    pub(super) fn before(&self, uid: Option<&str>, there: &[Condition]) -> Vec<Condition> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uid.and_then(|uid| written.get(uid)).map_or_else(|| there.to_vec(), Clone::clone)
    }

    fn remember(&self, uid: Option<&str>, conditions: &[Condition]) {
        if let Some(uid) = uid {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert(uid.to_owned(), conditions.to_vec());
        }
    }
}

/// A status beside the one that is there.
pub(super) struct Change<'a, S> {
    pub(super) there: Option<&'a S>,
    pub(super) wanted: &'a S,
    pub(super) before: &'a [Condition],
    pub(super) conditions: &'a [Condition],
}

/// What turned, for those who have more to say about it.
pub(super) async fn write<K, S>(
    ctx: &Context,
    object: &K,
    api: Api<K>,
    change: Change<'_, S>,
) -> Result<Vec<Condition>, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    S: Serialize + PartialEq,
{
    let Change { there, wanted, before, conditions } = change;
    if there == Some(wanted) {
        return Ok(Vec::new());
    }
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any()}, "status": wanted,
    });
    let params = PatchParams::apply(OPERATOR).force();
    match api.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        // Deleted in between: there is nobody to show it to.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(Error::Status(Box::new(error))),
    }
    ctx.written.remember(object.uid().as_deref(), conditions);
    let turned: Vec<Condition> = conditions.iter().filter(|c| has_turned(before, c)).cloned().collect();
    for turned in &turned {
        let Condition { type_, status, reason, message, observed_generation: _, last_transition_time: _ } = turned;
        let note = format!("{type_} is {status}: {message}");
        publish(ctx, object, is_warning(status, reason), reason, &note).await;
    }
    Ok(turned)
}

fn has_turned(before: &[Condition], now: &Condition) -> bool {
    let same = |c: &&Condition| c.type_ == now.type_ && c.status == now.status && c.reason == now.reason;
    !before.iter().any(|condition| same(&condition))
}

/// An event that can't be published is no reason to reconcile again.
pub(super) async fn publish<K>(ctx: &Context, object: &K, is_warning: bool, reason: &str, note: &str)
where
    K: Resource<DynamicType = ()>,
{
    let event = Event {
        type_: if is_warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(shortened(note)),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
        warn!(%error, reason, "failed to publish an event");
    }
}

fn shortened(text: &str) -> String {
    let end =
        text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_NOTE).last().unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let text = "ä".repeat(MAX_NOTE);
        assert_eq!(shortened(&text).len(), MAX_NOTE);
        assert_eq!(shortened("short"), "short");
    }
}
