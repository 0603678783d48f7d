//! Finds out what a tag names when its uri is first seen. Resolved once: what is found goes into the status, and from
//! then on the status says it. Talks to registries; does not know what an artifact holds.

mod registry;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use easel_api::engine::{Access, Source};
use easel_crds::ImageModel;
use easel_crds::condition::Reason;
use easel_planner::ModelId;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::access::{Credential, credential};
use super::secrets::Secrets;
use crate::index::Observed;
use crate::wire;

/// Registries that are asked at once.
const AT_ONCE: usize = 4;
const PAUSE_LEAST: Duration = Duration::from_secs(2);
const PAUSE_MOST: Duration = Duration::from_mins(5);

/// How far a tag is that is not in the status yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    Resolving,
    Resolved { uri: String, digest: String },
    Failed(TagFailure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFailure {
    pub reason: Reason,
    pub message: String,
}

/// Models whose tag is to be resolved.
pub type Tags = BTreeMap<ModelId, Tag>;

/// One a term.
pub struct TagResolver {
    pub observed: watch::Receiver<Arc<Observed>>,
    pub secrets: watch::Receiver<Arc<Secrets>>,
    pub tags: watch::Sender<Arc<Tags>>,
}

impl fmt::Debug for TagResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagResolver").finish_non_exhaustive()
    }
}

/// What is asked of a registry. Another question is a new one, without the pauses of the former.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    /// Another model of the same name is asked for anew.
    uid: Option<String>,
    uri: String,
    registry: String,
    repository: String,
    tag: String,
    plain_http: bool,
    access: Option<Access>,
}

#[derive(Debug)]
struct Attempt {
    question: Question,
    in_flight: bool,
    failures: u32,
    not_before: Instant,
    tag: Tag,
}

impl TagResolver {
    /// Until it is dropped.
    pub async fn run(mut self) {
        let (mut attempts, at_once) = (BTreeMap::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let mut running: JoinSet<(ModelId, Question, Result<String, TagFailure>)> = JoinSet::new();
        loop {
            let retry = attempts.values().filter(|attempt: &&Attempt| attempt.waits()).map(|a| a.not_before).min();
            tokio::select! {
                changed = self.observed.changed() => if changed.is_err() { return },
                changed = self.secrets.changed() => if changed.is_err() { return },
                Some(ended) = running.join_next() => match ended {
                    Ok((id, question, result)) => book(&mut attempts, &id, &question, result, Instant::now()),
                    Err(error) => warn!(%error, "resolving a tag died"),
                },
                () = sleep_until(retry) => {}
            }
            let (observed, secrets) =
                (self.observed.borrow_and_update().clone(), self.secrets.borrow_and_update().clone());
            if !observed.complete {
                continue; // a status that is not listed yet may know it already
            }
            attempts.retain(|id, attempt: &mut Attempt| attempt.is_of(observed.models.get(id)));
            follow(&mut attempts, &questions(&observed, &secrets), Instant::now());
            for (id, question) in begin(&mut attempts, Instant::now()) {
                let at_once = at_once.clone();
                running.spawn(async move {
                    let _permit = at_once.acquire_owned().await;
                    let result = registry::digest(&question).await;
                    (id, question, result)
                });
            }
            self.publish(&attempts);
        }
    }

    fn publish(&self, attempts: &BTreeMap<ModelId, Attempt>) {
        let now: Tags = attempts.iter().map(|(id, attempt)| (id.clone(), attempt.tag.clone())).collect();
        self.tags.send_if_modified(|held| {
            let changed = **held != now;
            if changed {
                *held = Arc::new(now);
            }
            changed
        });
    }
}

impl Attempt {
    fn new(question: Question, now: Instant) -> Self {
        Self { question, in_flight: false, failures: 0, not_before: now, tag: Tag::Resolving }
    }

    /// Of this model, with this uri.
    fn is_of(&self, model: Option<&Arc<ImageModel>>) -> bool {
        let Question { uid, uri, .. } = &self.question;
        model.is_some_and(|model| model.metadata.uid == *uid && model.spec.checkpoint.uri == *uri)
    }

    /// For its turn, or for the end of a pause.
    fn waits(&self) -> bool {
        !self.in_flight && !matches!(self.tag, Tag::Resolved { .. })
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Models whose tag no status knows yet and whose credential is there, if they name one.
fn questions(observed: &Observed, secrets: &Secrets) -> BTreeMap<ModelId, Question> {
    let asked = |(id, model): (&ModelId, &Arc<ImageModel>)| Some((id.clone(), question(model, secrets)?));
    observed.models.iter().filter_map(asked).collect()
}

fn question(model: &ImageModel, secrets: &Secrets) -> Option<Question> {
    let wanted = &model.spec.checkpoint;
    if !wanted.resolve_tag || model.digest().is_some() || model.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (registry, repository, tag) = wire::tag(&wanted.uri)?;
    let (registry, repository, tag) = (registry.to_owned(), repository.to_owned(), tag.to_owned());
    let (plain_http, namespace) = (wanted.plain_http, model.metadata.namespace.as_deref()?);
    let source = Source::Oci { registry: registry.clone(), repository: repository.clone(), plain_http };
    let name = wanted.secret_ref.as_ref().map(|secret| secret.name.as_str());
    let access = match credential(namespace, name, &source, secrets) {
        Credential::None => None,
        Credential::Found(access) => Some(access),
        Credential::Missing(_) | Credential::Unread => return None,
    };
    let (uid, uri) = (model.metadata.uid.clone(), wanted.uri.clone());
    Some(Question { uid, uri, registry, repository, tag, plain_http, access })
}

/// Forgets what nobody asks any more, and begins anew what is asked differently. What is resolved stays as long as the
/// model names that uri: a status that was read a moment too early must not lose its pin.
fn follow(attempts: &mut BTreeMap<ModelId, Attempt>, questions: &BTreeMap<ModelId, Question>, now: Instant) {
    let resolved = |attempt: &Attempt| matches!(attempt.tag, Tag::Resolved { .. });
    attempts.retain(|id, attempt| resolved(attempt) || questions.get(id) == Some(&attempt.question));
    for (id, question) in questions {
        attempts.entry(id.clone()).or_insert_with(|| Attempt::new(question.clone(), now));
    }
}

/// Those whose turn it is.
fn begin(attempts: &mut BTreeMap<ModelId, Attempt>, now: Instant) -> Vec<(ModelId, Question)> {
    let due = attempts.iter_mut().filter(|(_, attempt)| attempt.waits() && attempt.not_before <= now);
    let begun = due.map(|(id, attempt)| {
        attempt.in_flight = true;
        (id.clone(), attempt.question.clone())
    });
    begun.collect()
}

fn book(
    attempts: &mut BTreeMap<ModelId, Attempt>,
    id: &ModelId,
    question: &Question,
    result: Result<String, TagFailure>,
    now: Instant,
) {
    let Some(attempt) = attempts.get_mut(id).filter(|attempt| attempt.question == *question) else { return };
    attempt.in_flight = false;
    match result {
        Ok(digest) => {
            info!(model = %id, uri = question.uri, digest, "tag resolved");
            attempt.tag = Tag::Resolved { uri: question.uri.clone(), digest };
        }
        Err(failure) => {
            warn!(model = %id, uri = question.uri, reason = %failure.reason, message = failure.message, "tag not resolved");
            attempt.failures = attempt.failures.saturating_add(1);
            attempt.not_before = now + pause(attempt.failures);
            attempt.tag = Tag::Failed(failure);
        }
    }
}

fn pause(failures: u32) -> Duration {
    (PAUSE_LEAST * 2_u32.saturating_pow(failures.saturating_sub(1)).min(1 << 16)).min(PAUSE_MOST)
}

#[cfg(test)]
mod tests;
