//! What is known of the checkpoint that shall be served: pinned, on its way, verified, or refused, and why.
//! A function of what pods and stores say; does not know who answers requests.

use std::iter::once;

use easel_api::engine::{ModelReport, ModelState, RefusalReason};
use easel_crds::condition::{ConditionType, Reason};
use easel_crds::{CheckpointStatus, ImageModel};
use easel_planner::snapshot::ReplicaPhase;
use easel_planner::{ModelId, ReplicaId};

use super::super::conditions::{Finding, Is};
use super::Shown;
use crate::index::{ObservedPod, believable};
use crate::planning::View;
use crate::stores::{Credential, Tag};

/// A status is written at most once for each such part of a fetch: it is no progress bar.
const STEPS: u64 = 20;
pub(super) const MB: u64 = 1_000_000;

/// The digest of the spec's checkpoint. What the controller's own watch has not brought yet, the index may know.
pub(super) fn digest(shown: &Shown<'_>) -> Option<String> {
    let Shown { id, model, view, found: _ } = *shown;
    let seen = view.observed.models.get(id).filter(|seen| seen.spec.checkpoint.uri == model.spec.checkpoint.uri);
    let written = model.digest().or_else(|| seen.and_then(|seen| seen.digest()));
    let resolved = || match view.known.tags.get(id)? {
        Tag::Resolved { uri, digest } if *uri == model.spec.checkpoint.uri => Some(digest.as_str()),
        Tag::Resolved { .. } | Tag::Resolving | Tag::Failed(_) => None,
    };
    written.or_else(resolved).map(str::to_owned)
}

/// What the status remembers: the pin, and how far the slowest replica is.
pub(super) fn status(shown: &Shown<'_>, digest: Option<&str>) -> CheckpointStatus {
    let before = shown.model.status.as_ref().and_then(|status| status.checkpoint.as_ref());
    let uri = &shown.model.spec.checkpoint.uri;
    let Some(digest) = digest else {
        // Until the tag is resolved, pods go on with the checkpoint before.
        let former = before.filter(|before| before.digest.is_some());
        return former.cloned().unwrap_or_else(|| CheckpointStatus { uri: uri.clone(), ..CheckpointStatus::default() });
    };
    let progress = progress(shown.id, digest, shown.view);
    let same = before.filter(|before| before.digest.as_deref() == Some(digest));
    CheckpointStatus {
        uri: uri.clone(),
        digest: Some(digest.to_owned()),
        fetched_bytes: progress.map(|progress| progress.fetched()),
        // Stays: how large a checkpoint is, is of use later too.
        total_bytes: progress.map(|progress| progress.total).or_else(|| same.and_then(|before| before.total_bytes)),
        seconds_left: progress.and_then(|progress| progress.seconds_left),
    }
}

/// How far a fetch is, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    steps: u64,
    total: u64,
    seconds_left: Option<u64>,
}

impl Progress {
    fn new(done: u64, total: u64, seconds_left: Option<u64>) -> Self {
        let steps = (u128::from(done) * u128::from(STEPS) / u128::from(total.max(1))).min(u128::from(STEPS));
        Self { steps: steps as u64, total, seconds_left: seconds_left.map(round) }
    }

    fn fetched(&self) -> u64 {
        (u128::from(self.total) * u128::from(self.steps) / u128::from(STEPS)) as u64
    }

    fn words(&self) -> String {
        let left = self.seconds_left.map(|left| format!(", about {left} s left")).unwrap_or_default();
        format!("{} % of {} MB fetched{left}", self.steps * 100 / STEPS, self.total.div_ceil(MB))
    }
}

/// As coarse as a guess is.
fn round(seconds: u64) -> u64 {
    let to = if seconds < 60 { 5 } else { 30 };
    seconds.div_ceil(to) * to
}

/// Of the slowest replica that fetches.
fn progress(id: &ModelId, digest: &str, view: &View) -> Option<Progress> {
    let fetching = said(id, digest, view).filter_map(|(_, _, report)| match report.state {
        ModelState::Fetching { done_bytes, total_bytes, seconds_left } => {
            Some(Progress::new(done_bytes, total_bytes, seconds_left))
        }
        ModelState::Verifying { .. }
        | ModelState::Loading
        | ModelState::WarmingUp
        | ModelState::Ready
        | ModelState::Refused { .. } => None,
    });
    fetching.min_by_key(|progress| (progress.steps, std::cmp::Reverse(progress.seconds_left)))
}

/// `CheckpointVerified`. What one replica has verified is verified; another that refuses it is named beside.
pub(super) fn verified(shown: &Shown<'_>, digest: Option<&str>) -> Finding {
    let Shown { id, model, view, found: _ } = *shown;
    let Some(digest) = digest else { return unresolved(id, model, view) };
    let refused = refusal(id, digest, view);
    let missing = missing(id, view);
    if said(id, digest, view).any(|(_, _, report)| is_verified(&report.state)) {
        let beside = refused.map(|(_, message)| message).into_iter().chain(missing.map(str::to_owned));
        let sentences: Vec<String> = once(format!("the bytes are those of {digest}")).chain(beside).collect();
        return finding(Is::True, Reason::Verified, sentences.join("; but "));
    }
    if let Some(message) = missing {
        return finding(Is::False, Reason::SecretNotFound, message);
    }
    if let Some((reason, message)) = refused {
        return finding(Is::False, reason_of(reason), message);
    }
    if let Some(progress) = progress(id, digest, view) {
        return finding(Is::Unknown, Reason::Fetching, progress.words());
    }
    verifying(id, digest, view)
        .unwrap_or_else(|| finding(Is::Unknown, Reason::AwaitingReplica, "no replica has read the checkpoint yet"))
}

fn finding(is: Is, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::CheckpointVerified, is, reason, message)
}

fn unresolved(id: &ModelId, model: &ImageModel, view: &View) -> Finding {
    if let Some(message) = missing(id, view) {
        return finding(Is::False, Reason::SecretNotFound, message);
    }
    match view.known.tags.get(id) {
        Some(Tag::Failed(failure)) => finding(Is::False, failure.reason, failure.message.clone()),
        Some(Tag::Resolving | Tag::Resolved { .. }) | None => {
            let message = format!("the registry is being asked what {} names", model.spec.checkpoint.uri);
            finding(Is::Unknown, Reason::ResolvingTag, message)
        }
    }
}

/// Why the model's Secret is of no use.
fn missing<'a>(id: &ModelId, view: &'a View) -> Option<&'a str> {
    match view.known.credentials.get(id)? {
        Credential::Missing(message) => Some(message),
        Credential::None | Credential::Found(_) | Credential::Unread => None,
    }
}

/// By a replica that stays: one of an older template may not even see the volume that the checkpoint is in.
fn refusal(id: &ModelId, digest: &str, view: &View) -> Option<(RefusalReason, String)> {
    said(id, digest, view).filter(|(replica, _, _)| is_current(replica, view)).find_map(
        |(_, pod, report)| match &report.state {
            ModelState::Refused { reason, message } => Some((*reason, format!("{}: {message}", pod.name))),
            ModelState::Fetching { .. }
            | ModelState::Verifying { .. }
            | ModelState::Loading
            | ModelState::WarmingUp
            | ModelState::Ready => None,
        },
    )
}

pub(super) fn is_current(id: &ReplicaId, view: &View) -> bool {
    view.snapshot.replicas.get(id).is_some_and(|replica| replica.phase == ReplicaPhase::Current)
}

fn is_verified(state: &ModelState) -> bool {
    match state {
        ModelState::Loading | ModelState::WarmingUp | ModelState::Ready => true,
        ModelState::Fetching { .. } | ModelState::Verifying { .. } | ModelState::Refused { .. } => false,
    }
}

/// In tenths.
fn verifying(id: &ModelId, digest: &str, view: &View) -> Option<Finding> {
    let percent = said(id, digest, view).filter_map(|(_, _, report)| match report.state {
        ModelState::Verifying { done_bytes, total_bytes } => {
            Some(done_bytes.saturating_mul(10) / total_bytes.max(1) * 10)
        }
        ModelState::Fetching { .. }
        | ModelState::Loading
        | ModelState::WarmingUp
        | ModelState::Ready
        | ModelState::Refused { .. } => None,
    });
    let percent = percent.max()?;
    Some(finding(Is::Unknown, Reason::Verifying, format!("{percent} % of the checkpoint is verified")))
}

/// What pods say of the model at this digest.
pub(super) fn said<'a>(
    id: &'a ModelId,
    digest: &'a str,
    view: &'a View,
) -> impl Iterator<Item = (&'a ReplicaId, &'a ObservedPod, &'a ModelReport)> {
    let of = |(replica, report)| view.observed.pods.get(replica).map(|pod| (replica, &**pod, report));
    view.observed.reports.iter().filter_map(of).flat_map(move |(replica, pod, report)| {
        let ours =
            believable(pod, report).filter(move |model| model.id.as_str() == id.as_str() && model.digest == digest);
        ours.map(move |model| (replica, pod, model))
    })
}

pub(super) fn reason_of(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::NotFound => Reason::NotFound,
        RefusalReason::Unreachable => Reason::Unreachable,
        RefusalReason::Unauthorized => Reason::Unauthorized,
        RefusalReason::Truncated => Reason::Truncated,
        RefusalReason::NoSpace => Reason::NoSpace,
        RefusalReason::DigestMismatch => Reason::DigestMismatch,
        RefusalReason::Unsupported => Reason::Unsupported,
        RefusalReason::UnsafeFormat => Reason::UnsafeFormat,
        RefusalReason::Unsigned => Reason::Unsigned,
        RefusalReason::SignatureInvalid => Reason::SignatureInvalid,
        RefusalReason::LoadFailed => Reason::LoadFailed,
    }
}
