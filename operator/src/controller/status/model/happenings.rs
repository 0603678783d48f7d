//! What happened to a checkpoint, for `kubectl describe`: each once, by a name that does not depend on the outcome.
//! A function of two statuses; whoever publishes it bounds how often.

use easel_api::engine::ModelState;
use easel_crds::ImageModelStatus;
use easel_crds::condition::{ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Shown;
use super::checkpoint::{MB, said};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    pub reason: &'static str,
    pub is_warning: bool,
    pub note: String,
    /// One such happening for each of these.
    pub of: String,
}

/// `turned`: conditions that are others than before.
pub(crate) fn happenings(
    shown: &Shown<'_>,
    turned: &[Condition],
    before: Option<&ImageModelStatus>,
    now: &ImageModelStatus,
) -> Vec<Happening> {
    let verified = turned.iter().find(|turned| turned.type_ == ConditionType::CheckpointVerified.to_string());
    let all = [tag_resolved(shown, before, now), verified.and_then(on_its_way), ready(shown, before, now)];
    all.into_iter().flatten().collect()
}

fn tag_resolved(shown: &Shown<'_>, before: Option<&ImageModelStatus>, now: &ImageModelStatus) -> Option<Happening> {
    let pinned = now.checkpoint.as_ref()?;
    let digest = pinned.digest.as_ref()?;
    let former = before.and_then(|before| before.checkpoint.as_ref());
    let same = former.is_some_and(|former| former.digest == pinned.digest && former.uri == pinned.uri);
    let wanted = &shown.model.spec.checkpoint;
    (wanted.resolve_tag && wanted.uri == pinned.uri && !same).then(|| Happening {
        reason: "TagResolved",
        is_warning: false,
        note: format!("{} is {digest}, and stays so until the uri changes", pinned.uri),
        of: format!("{} {digest}", pinned.uri),
    })
}

fn on_its_way(verified: &Condition) -> Option<Happening> {
    let (of, message) = (format!("{}: {}", verified.reason, verified.message), &verified.message);
    if verified.status == "False" {
        return Some(Happening { reason: "CheckpointRefused", is_warning: true, note: of.clone(), of });
    }
    let fetching = verified.reason == Reason::Fetching.to_string();
    fetching.then(|| Happening { reason: "CheckpointFetching", is_warning: false, note: message.clone(), of })
}

/// When the first replica serves the digest that shall be served.
fn ready(shown: &Shown<'_>, before: Option<&ImageModelStatus>, now: &ImageModelStatus) -> Option<Happening> {
    let pinned = now.checkpoint.as_ref()?;
    let digest = now.digest.as_ref().filter(|served| pinned.digest.as_ref() == Some(served))?;
    if before.is_some_and(|before| before.digest.as_ref() == Some(digest)) {
        return None;
    }
    let mut serving = said(shown.id, digest, shown.view).filter(|(_, _, report)| report.state == ModelState::Ready);
    let (_, pod, report) = serving.next()?;
    let took = report.load_ms.map(|ms| format!(" after {:.1} s", ms as f64 / 1000.0)).unwrap_or_default();
    let size = pinned.total_bytes.map(|bytes| format!(", {} MB", bytes.div_ceil(MB))).unwrap_or_default();
    let note = format!("{} serves {digest}{took}{size}", pod.name);
    Some(Happening { reason: "CheckpointReady", is_warning: false, note, of: digest.clone() })
}

#[cfg(test)]
mod tests {
    use easel_api::engine::RefusalReason;
    use easel_planner::ModelId;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::super::{Found, status};
    use super::*;
    use crate::planning::testing::view;
    use crate::testing::{DIGEST, model, observed, pool, report, resolved, shared_pod, with};

    /// Reasons and notes on the way from one state of the only replica to the next.
    fn on_the_way(from: ModelState, to: ModelState) -> Vec<(&'static str, String)> {
        let tagged = json!({"checkpoint": {"uri": "oci://r.example/m:v1", "resolveTag": true}});
        let pinned = resolved(with(model("art", "m"), tagged), "oci://r.example/m:v1", DIGEST);
        let of = |state: ModelState| {
            let mut says = report(1, 1, &[("art/m", state)]);
            says.models[0].load_ms = Some(12_340);
            let world = observed(
                &[pool("cpu")],
                std::slice::from_ref(&pinned),
                &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says))],
            );
            view(world)
        };
        let (first, then, found, id) = (of(from), of(to), Found::default(), ModelId::new("art/m"));
        let shown = |view| Shown { id: &id, model: &pinned, view, found: &found };
        let before = status(&shown(&first), None, "easel-system", &[], Timestamp::UNIX_EPOCH);
        let now = status(&shown(&then), None, "easel-system", &before.conditions, Timestamp::UNIX_EPOCH);
        let turned: Vec<Condition> = now
            .conditions
            .iter()
            .filter(|now| !before.conditions.iter().any(|c| c.type_ == now.type_ && c.reason == now.reason))
            .cloned()
            .collect();
        let happened = happenings(&shown(&then), &turned, Some(&before), &now);
        happened.into_iter().map(|happening| (happening.reason, happening.note)).collect()
    }

    #[test]
    fn the_way_of_a_checkpoint_is_told_step_by_step() {
        let fetching = |done| ModelState::Fetching { done_bytes: done, total_bytes: 8_000_000, seconds_left: Some(7) };
        let refused = ModelState::Refused { reason: RefusalReason::NoSpace, message: "why and how".into() };
        let ready = (ModelState::WarmingUp, ModelState::Ready);
        assert_eq!(on_the_way(ModelState::Loading, ModelState::Loading), []);
        let began = on_the_way(ModelState::Verifying { done_bytes: 0, total_bytes: 1 }, fetching(400_000));
        assert_eq!(began, [("CheckpointFetching", "5 % of 8 MB fetched, about 10 s left".into())]);
        assert_eq!(on_the_way(fetching(400_000), fetching(4_000_000)), []);
        assert_eq!(on_the_way(fetching(1), refused), [("CheckpointRefused", "NoSpace: a: why and how".into())]);
        assert_eq!(on_the_way(ready.0, ready.1), [("CheckpointReady", format!("a serves {DIGEST} after 12.3 s"))]);
    }

    #[test]
    fn a_tag_is_told_when_it_is_pinned_and_not_again() {
        let tagged = json!({"checkpoint": {"uri": "oci://r.example/m:v1", "resolveTag": true}});
        let new = with(model("art", "m"), tagged);
        let pinned = resolved(new.clone(), "oci://r.example/m:v1", DIGEST);
        let now = pinned.status.clone().unwrap();
        let (view, found, id) = (view(observed(&[], &[], &[])), Found::default(), ModelId::new("art/m"));
        let shown = Shown { id: &id, model: &new, view: &view, found: &found };
        let told = happenings(&shown, &[], None, &now);
        assert_eq!((told.len(), told[0].reason), (1, "TagResolved"));
        assert!(told[0].note.contains(DIGEST), "{}", told[0].note);
        assert_eq!(happenings(&shown, &[], Some(&now), &now), []);
    }
}
