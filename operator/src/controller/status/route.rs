//! The status of an ImageRoute: whether it has its name, which of its backends exist, and which of those answer.
//! A function of the view; knows no client.

use easel_crds::condition::{ConditionType, Reason};
use easel_crds::image_route::BackendStatus;
use easel_crds::{ImageRoute, ImageRouteStatus};
use easel_planner::report::Outcome;
use easel_planner::traffic::{self, Acceptance, BackendState, Refusal};
use easel_planner::{ModelId, RouteId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{Finding, Is, ready, render};
use crate::names::split;
use crate::planning::View;

/// Whose status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub id: &'a RouteId,
    pub route: &'a ImageRoute,
    pub view: &'a View,
    /// The route is wrong by itself.
    pub invalid: Option<&'a str>,
}

pub(crate) fn status(shown: &Shown<'_>, url: Option<&str>, before: &[Condition], now: Timestamp) -> ImageRouteStatus {
    let Shown { id, route, view, invalid } = *shown;
    let verdict = traffic::accept(&view.snapshot.routes, &view.snapshot.models.keys().cloned().collect()).remove(id);
    let backends = verdict.as_ref().map(|verdict| backends(verdict, view)).unwrap_or_default();
    let accepted = accepted(verdict.as_ref(), invalid);
    let resolved = resolved(verdict.as_ref());
    let serving = serving(verdict.as_ref(), &backends, view);
    let sum = ready(&[&accepted, &serving]);
    let generation = route.metadata.generation;
    let count = |is: fn(&BackendStatus) -> bool| u32::try_from(backends.iter().filter(|b| is(b)).count()).unwrap_or(0);
    ImageRouteStatus {
        observed_generation: generation,
        model: route.model().map(str::to_owned),
        url: url.map(str::to_owned),
        accepted_backends: count(|backend| backend.accepted),
        ready_backends: count(|backend| backend.accepted && backend.ready),
        conditions: render(&[&sum, &accepted, &resolved, &serving], before, generation, now),
        backends,
    }
}

fn backends(verdict: &Acceptance, view: &View) -> Vec<BackendStatus> {
    let row = |(id, state): &(ModelId, BackendState)| {
        let ready = answers(id, view);
        let message = match state {
            BackendState::Accepted if ready => None,
            BackendState::Accepted => {
                Some("no replica answers for it; see the conditions of the ImageModel".to_owned())
            }
            BackendState::NotFound | BackendState::Off => Some(state.to_string()),
        };
        let accepted = *state == BackendState::Accepted;
        BackendStatus { model: split(id).1.to_owned(), accepted, ready, message }
    };
    verdict.backends.iter().map(row).collect()
}

fn answers(id: &ModelId, view: &View) -> bool {
    view.snapshot.replicas.values().any(|replica| replica.residents.get(id).is_some_and(|resident| resident.ready))
}

fn accepted(verdict: Option<&Acceptance>, invalid: Option<&str>) -> Finding {
    let finding = |is, reason, message: String| Finding::new(ConditionType::Accepted, is, reason, message);
    if let Some(invalid) = invalid {
        return finding(Is::False, Reason::InvalidSpec, invalid.to_owned());
    }
    let Some(Acceptance { name, shadows, backends: _ }) = verdict else {
        return finding(Is::Unknown, Reason::AwaitingPlan, "the plan has not seen the route yet".into());
    };
    match (name, shadows) {
        (Err(refusal @ Refusal::NameTaken { .. }), _) => finding(Is::False, Reason::NameTaken, refusal.to_string()),
        (Ok(()), Some(model)) => {
            let message = format!(
                "clients reach the route by its name; it stands before the ImageModel {model}, which they reach through a route only"
            );
            finding(Is::True, Reason::ShadowsModel, message)
        }
        (Ok(()), None) => finding(Is::True, Reason::Accepted, "clients reach the route by its name".into()),
    }
}

fn resolved(verdict: Option<&Acceptance>) -> Finding {
    let finding = |is, reason, message: String| Finding::new(ConditionType::ResolvedRefs, is, reason, message);
    let Some(verdict) = verdict else {
        return finding(Is::Unknown, Reason::AwaitingPlan, "the plan has not seen the route yet".into());
    };
    let missing = verdict.backends.iter().filter(|(_, state)| *state == BackendState::NotFound);
    let missing: Vec<&str> = missing.map(|(id, _)| split(id).1).collect();
    if missing.is_empty() {
        return finding(Is::True, Reason::ResolvedRefs, format!("all {} backends exist", verdict.backends.len()));
    }
    let message = format!(
        "there is no valid ImageModel {} in the namespace; create it or mend spec.backends; the others serve on",
        missing.join(", ")
    );
    finding(Is::False, Reason::BackendNotFound, message)
}

fn serving(verdict: Option<&Acceptance>, backends: &[BackendStatus], view: &View) -> Finding {
    let finding = |is, reason, message: String| Finding::new(ConditionType::Serving, is, reason, message);
    let accepted = backends.iter().filter(|backend| backend.accepted);
    let (all, ready) = accepted.fold((0, 0), |(all, ready), backend| (all + 1, ready + u32::from(backend.ready)));
    if ready > 0 {
        return finding(Is::True, Reason::Serving, format!("{ready} of {all} backends answer"));
    }
    if all == 0 {
        let message = "no backend takes requests: none exists with a weight above 0".to_owned();
        return finding(Is::False, Reason::NoReadyBackend, message);
    }
    let taking = verdict.into_iter().flat_map(|verdict| &verdict.backends);
    let taking = taking.filter(|(_, state)| *state == BackendState::Accepted);
    let rests = taking.filter_map(|(id, _)| view.plan.outcomes.get(id)).collect::<Vec<_>>();
    if rests.iter().all(|outcome| matches!(outcome, Outcome::Parked)) {
        let message = "every backend is parked: raise replicas.min of one of the ImageModels, or write a replicas.max";
        return finding(Is::False, Reason::Parked, message.to_owned());
    }
    if rests.iter().all(|outcome| matches!(outcome, Outcome::Parked | Outcome::Asleep)) {
        let message = "asleep: nobody asks for it; the first request wakes a backend".to_owned();
        return finding(Is::False, Reason::Asleep, message);
    }
    finding(
        Is::False,
        Reason::NoReadyBackend,
        format!("0 of {all} backends answer; see the conditions of the ImageModels"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use easel_api::engine::ModelState;
    use serde_json::json;

    use super::*;
    use crate::planning::testing::view;
    use crate::testing::{model, observed, pool, report, route, shared_pod, with, with_meta};

    /// Each condition of `art/paint` as `type=status reason`, in a world with these models and other routes.
    fn shown(
        paint: &ImageRoute,
        others: &[ImageRoute],
        models: &[easel_crds::ImageModel],
    ) -> (Vec<String>, ImageRouteStatus) {
        let says = report(1, 1, &[("art/ready", ModelState::Ready)]);
        let mut world = observed(&[pool("cpu")], models, &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says))]);
        for route in others.iter().chain([paint]) {
            world.routes.insert(easel_crds::planner::route_id(route).unwrap(), Arc::new(route.clone()));
        }
        let (view, id) = (view(world), RouteId::new("art/paint"));
        let shown = Shown { id: &id, route: paint, view: &view, invalid: None };
        let status = status(&shown, Some("http://gateway"), &[], Timestamp::UNIX_EPOCH);
        let line = |c: &Condition| format!("{}={} {}", c.type_, c.status, c.reason);
        (status.conditions.iter().map(line).collect(), status)
    }

    fn paint(backends: &[&str]) -> ImageRoute {
        let backends: Vec<_> = backends.iter().map(|name| json!({"model": name})).collect();
        route("art", "paint", &json!({"backends": backends}))
    }

    #[test]
    fn a_route_serves_while_one_backend_answers_and_names_those_that_are_missing() {
        let models = [model("art", "ready"), model("art", "slow")];
        let (conditions, status) = shown(&paint(&["ready", "slow", "gone"]), &[], &models);
        let expected = [
            "Ready=True AllPartsReady",
            "Accepted=True Accepted",
            "ResolvedRefs=False BackendNotFound",
            "Serving=True Serving",
        ];
        assert_eq!(conditions, expected);
        assert_eq!((status.accepted_backends, status.ready_backends, status.model.as_deref()), (2, 1, Some("paint")));
        let rows: Vec<_> = status.backends.iter().map(|b| (&*b.model, b.accepted, b.ready)).collect();
        assert_eq!(rows, [("ready", true, true), ("slow", true, false), ("gone", false, false)]);
        assert!(status.conditions[2].message.contains("no valid ImageModel gone"), "{}", status.conditions[2].message);
    }

    #[test]
    fn a_route_whose_name_is_taken_names_the_one_that_has_it() {
        let older = with_meta(
            route("art", "older", &json!({"model": "paint", "backends": [{"model": "ready"}]})),
            json!({"creationTimestamp": "1970-01-01T00:00:01Z"}),
        );
        let younger = with_meta(paint(&["ready"]), json!({"creationTimestamp": "1970-01-01T00:00:02Z"}));
        let (conditions, status) = shown(&younger, &[older], &[model("art", "ready")]);
        assert_eq!(conditions[..2], ["Ready=False NameTaken", "Accepted=False NameTaken"]);
        assert!(status.conditions[0].message.contains("ImageRoute art/older"), "{}", status.conditions[0].message);
    }

    #[test]
    fn a_route_with_the_name_of_a_model_says_that_it_stands_before_it() {
        let (conditions, status) = shown(&paint(&["ready"]), &[], &[model("art", "ready"), model("art", "paint")]);
        assert_eq!(conditions[1], "Accepted=True ShadowsModel");
        assert!(status.conditions[1].message.contains("art/paint"));
    }

    #[test]
    fn a_route_that_nobody_serves_says_why() {
        let parked = with(model("art", "slow"), json!({"replicas": {"min": 0}}));
        let asleep = with(model("art", "slow"), json!({"replicas": {"min": 0, "max": 2}}));
        for (backends, models, expected) in [
            (&["gone"][..], vec![], "Serving=False NoReadyBackend"),
            (&["slow"], vec![model("art", "slow")], "Serving=False NoReadyBackend"),
            (&["slow"], vec![parked], "Serving=False Parked"),
            (&["slow"], vec![asleep], "Serving=False Asleep"),
        ] {
            assert_eq!(shown(&paint(backends), &[], &models).0[3], expected);
        }
    }
}
