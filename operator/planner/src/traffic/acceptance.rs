//! Which route has a name, and which of its backends exist: for the gateway and for the status alike.
//! Knows names and ages; whether a model answers is known by whoever asks its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Route;
use crate::names::{ModelId, RouteId};

/// What became of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    pub name: Result<(), Refusal>,
    /// An ImageModel of the same namespace has the route's name; clients reach it through the route only.
    pub shadows: Option<ModelId>,
    /// In the order of the spec.
    pub backends: Vec<(ModelId, BackendState)>,
}

/// Why a route is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another of the namespace has its name, and is older.
    NameTaken { model: String, by: RouteId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    Accepted,
    /// There is no such ImageModel in the namespace.
    NotFound,
    /// Its weight is 0.
    Off,
}

/// All routes at once, because names are taken from one another. `models` are those that are served, by their id.
pub fn accept(routes: &BTreeMap<RouteId, Route>, models: &BTreeSet<ModelId>) -> BTreeMap<RouteId, Acceptance> {
    let mut owners: BTreeMap<(&str, &str), (&RouteId, i64)> = BTreeMap::new();
    for (id, route) in routes {
        let owner = owners.entry((namespace(id), &route.model)).or_insert((id, route.created));
        if (route.created, id) < (owner.1, owner.0) {
            *owner = (id, route.created);
        }
    }
    let verdict = |(id, route): (&RouteId, &Route)| {
        let owner = owners[&(namespace(id), &*route.model)].0;
        let taken = || Refusal::NameTaken { model: route.model.clone(), by: owner.clone() };
        let named = ModelId::new(format!("{}/{}", namespace(id), route.model));
        let acceptance = Acceptance {
            name: if owner == id { Ok(()) } else { Err(taken()) },
            shadows: models.contains(&named).then_some(named),
            backends: route.backends.iter().map(|b| (b.model.clone(), state(b, models))).collect(),
        };
        (id.clone(), acceptance)
    };
    routes.iter().map(verdict).collect()
}

fn state(backend: &super::Backend, models: &BTreeSet<ModelId>) -> BackendState {
    match models.contains(&backend.model) {
        false => BackendState::NotFound,
        true if backend.weight == 0 => BackendState::Off,
        true => BackendState::Accepted,
    }
}

fn namespace(id: &RouteId) -> &str {
    id.as_str().split_once('/').map_or("", |(namespace, _)| namespace)
}

impl Acceptance {
    pub fn accepted(&self, model: &ModelId) -> bool {
        self.name.is_ok() && self.backends.iter().any(|(id, state)| id == model && *state == BackendState::Accepted)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { model, by } => write!(
                f,
                "the name '{model}' is taken by the older ImageRoute {by}; change spec.model, or delete one of the two"
            ),
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::NotFound => {
                "there is no valid ImageModel of this name in the namespace; create it or mend spec.backends"
            }
            Self::Off => "its weight is 0: it takes no requests",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Backend;

    fn route(model: &str, created: i64, backends: &[(&str, u32)]) -> Route {
        let backend = |(name, weight): &(&str, u32)| Backend { model: ModelId::new(*name), tier: 1, weight: *weight };
        Route {
            model: model.into(),
            created,
            backends: backends.iter().map(backend).collect(),
            classes: Vec::new(),
            default_class: None,
            tenants: Vec::new(),
        }
    }

    fn accepted(routes: &[(&str, Route)], models: &[&str]) -> BTreeMap<RouteId, Acceptance> {
        let routes = routes.iter().map(|(id, route)| (RouteId::new(*id), route.clone())).collect();
        accept(&routes, &models.iter().map(|id| ModelId::new(*id)).collect())
    }

    #[test]
    fn of_two_routes_with_one_name_in_a_namespace_the_older_has_it() {
        let routes = [("art/a", route("x", 9, &[])), ("art/b", route("x", 5, &[])), ("toys/a", route("x", 9, &[]))];
        let verdicts = accepted(&routes, &[]);
        let refusal = verdicts[&RouteId::new("art/a")].name.clone().unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the name 'x' is taken by the older ImageRoute art/b; change spec.model, or delete one of the two"
        );
        assert!(verdicts[&RouteId::new("art/b")].name.is_ok() && verdicts[&RouteId::new("toys/a")].name.is_ok());
    }

    #[test]
    fn of_two_of_one_age_the_first_by_name_has_it() {
        let verdicts = accepted(&[("art/b", route("x", 5, &[])), ("art/a", route("x", 5, &[]))], &[]);
        assert!(verdicts[&RouteId::new("art/a")].name.is_ok() && verdicts[&RouteId::new("art/b")].name.is_err());
    }

    #[test]
    fn a_route_stands_before_the_model_of_its_name_and_says_which_backends_exist() {
        let routes = [("art/r", route("x", 1, &[("art/x", 1), ("art/off", 0), ("art/gone", 1)]))];
        let verdicts = accepted(&routes, &["art/x", "art/off", "toys/gone"]);
        let verdict = &verdicts[&RouteId::new("art/r")];
        assert_eq!(verdict.shadows, Some(ModelId::new("art/x")));
        let states: Vec<BackendState> = verdict.backends.iter().map(|(_, state)| *state).collect();
        assert_eq!(states, [BackendState::Accepted, BackendState::Off, BackendState::NotFound]);
        assert!(verdict.accepted(&ModelId::new("art/x")) && !verdict.accepted(&ModelId::new("art/off")));
    }
}
