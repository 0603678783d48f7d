//! Which model a client means: a route's or a model's `name` where one namespace has it, `namespace/name` always.
//! A function of the table; knows no HTTP and no request but its `model`.

use std::collections::{BTreeMap, BTreeSet};

use easel_api::error::ApiError;
use easel_api::images::{Model, ModelList};
use easel_planner::ModelId;
use easel_planner::traffic::{self, Backend};

use crate::routing_table::{RoutingTable, ServedModel, ServedRoute, Terms};

/// Names in a message: enough to see the typing error, few enough to read.
const MAX_LISTED: usize = 20;
/// Seconds after which asking again for a route without backends is worth while: somebody has to change its spec first.
const NO_BACKEND_RETRY: u64 = 60;

/// What a client's word for a model leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) id: &'a ModelId,
    pub(super) model: &'a ServedModel,
    pub(super) terms: &'a Terms,
}

/// What has a name. A route stands before the model of its name and namespace.
#[derive(Clone, Copy, Debug)]
enum Entry<'a> {
    Route(&'a ServedRoute),
    Model(&'a ModelId, &'a ServedModel),
}

impl<'a> Entry<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Route(route) => &route.name,
            Self::Model(_, model) => &model.name,
        }
    }

    fn namespace(self) -> &'a str {
        match self {
            Self::Route(route) => &route.namespace,
            Self::Model(_, model) => &model.namespace,
        }
    }

    fn full_name(self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    fn describe(self, id: String) -> Model {
        let created = match self {
            Self::Route(route) => route.created,
            Self::Model(_, model) => model.created,
        };
        Model { id, object: "model".into(), created, owned_by: self.namespace().to_owned() }
    }
}

/// What `wanted` names, or the only one there is. Of a route's backends the evenly drawn number chooses.
pub(super) fn resolve<'a>(table: &'a RoutingTable, wanted: Option<&str>, drawn: u32) -> Result<Target<'a>, ApiError> {
    match find(table, wanted)? {
        Entry::Route(route) => backend(table, route, drawn),
        Entry::Model(id, model) => Ok(Target { id, model, terms: &model.terms }),
    }
}

/// By weight in the highest tier that has a model which is not parked; if all are, the first.
fn backend<'a>(table: &'a RoutingTable, route: &'a ServedRoute, drawn: u32) -> Result<Target<'a>, ApiError> {
    let parked = |backend: &&Backend| table.models.get(&backend.model).is_none_or(|model| model.parked);
    let awake: Vec<&Backend> = route.backends.iter().filter(|backend| !parked(backend)).collect();
    let best: Vec<&Backend> = awake.iter().copied().filter(|backend| backend.tier == awake[0].tier).collect();
    let chosen = traffic::by_weight(&best, drawn).or(route.backends.first());
    let (id, model) = chosen.and_then(|backend| table.models.get_key_value(&backend.model)).ok_or_else(|| {
        let name = Entry::Route(route).full_name();
        let message = format!("none of the models behind '{name}' exists; the status of its ImageRoute says which");
        ApiError::unavailable("no_backend", message, NO_BACKEND_RETRY)
    })?;
    Ok(Target { id, model, terms: &route.terms })
}

fn find<'a>(table: &'a RoutingTable, wanted: Option<&str>) -> Result<Entry<'a>, ApiError> {
    if !table.complete {
        return Err(ApiError::unavailable("starting", "the gateway is starting and does not know its models yet", 1));
    }
    match wanted {
        Some(name) => named(table, name),
        None => only(table),
    }
}

fn named<'a>(table: &'a RoutingTable, wanted: &str) -> Result<Entry<'a>, ApiError> {
    // No name of Kubernetes or of a route has a slash, so one in `wanted` means that the namespace is said.
    let found: Vec<_> = match wanted.split_once('/') {
        Some((namespace, name)) => with_name(table, name).filter(|entry| entry.namespace() == namespace).collect(),
        None => with_name(table, wanted).collect(),
    };
    match found[..] {
        [one] => Ok(one),
        // What was sent is told back, but not at any length.
        [] => Err(ApiError::model_not_found(&wanted.chars().take(128).collect::<String>())),
        [_, _, ..] => {
            let message = format!("several namespaces have a model '{wanted}'; say which: {}", list(&found));
            Err(ApiError::invalid("model", "ambiguous_model", message))
        }
    }
}

fn only(table: &RoutingTable) -> Result<Entry<'_>, ApiError> {
    let all = entries(table);
    match all[..] {
        [one] => Ok(one),
        [] => Err(ApiError::invalid("model", "missing_model", "model is missing, and no model is served here yet")),
        [_, _, ..] => {
            let names: Vec<String> = all.iter().take(MAX_LISTED).map(|entry| client_name(table, *entry)).collect();
            let message = format!("model is missing; it can be {}{}", names.join(", "), more(all.len()));
            Err(ApiError::invalid("model", "missing_model", message))
        }
    }
}

/// Looked up by name alone, so that a request does not sort the whole table.
fn with_name<'a>(table: &'a RoutingTable, name: &str) -> impl Iterator<Item = Entry<'a>> {
    let routes: Vec<&ServedRoute> = table.routes.values().filter(|route| route.name == name).collect();
    let taken: BTreeSet<&str> = routes.iter().map(|route| &*route.namespace).collect();
    let models = table.models.iter().filter(move |(_, model)| model.name == name && !taken.contains(&*model.namespace));
    let models: Vec<Entry<'a>> = models.map(|(id, model)| Entry::Model(id, model)).collect();
    routes.into_iter().map(Entry::Route).chain(models)
}

/// All that clients may name, routes first.
fn entries(table: &RoutingTable) -> Vec<Entry<'_>> {
    let taken: BTreeSet<(&str, &str)> = table.routes.values().map(|route| (&*route.namespace, &*route.name)).collect();
    let own = table.models.iter().filter(|(_, model)| !taken.contains(&(&*model.namespace, &*model.name)));
    table.routes.values().map(Entry::Route).chain(own.map(|(id, model)| Entry::Model(id, model))).collect()
}

fn list(found: &[Entry<'_>]) -> String {
    let names: Vec<String> = found.iter().take(MAX_LISTED).map(|entry| entry.full_name()).collect();
    format!("{}{}", names.join(", "), more(found.len()))
}

fn more(count: usize) -> String {
    match count.saturating_sub(MAX_LISTED) {
        0 => String::new(),
        rest => format!(" and {rest} more (GET /v1/models)"),
    }
}

pub(super) fn full_name(model: &ServedModel) -> String {
    format!("{}/{}", model.namespace, model.name)
}

/// The shortest name that means this entry and no other.
fn client_name(table: &RoutingTable, entry: Entry<'_>) -> String {
    match with_name(table, entry.name()).nth(1) {
        None => entry.name().to_owned(),
        Some(_) => entry.full_name(),
    }
}

/// `GET /v1/models`.
pub(super) fn all(table: &RoutingTable) -> ModelList {
    let entries = entries(table);
    // Counted once: looking each name up among all would be quadratic in the models.
    let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in &entries {
        *owners.entry(entry.name()).or_default() += 1;
    }
    let id = |entry: Entry<'_>| if owners[entry.name()] == 1 { entry.name().to_owned() } else { entry.full_name() };
    let data = entries.iter().map(|entry| entry.describe(id(*entry))).collect();
    ModelList { object: "list".into(), data }
}

/// `GET /v1/models/{id}`.
pub(super) fn one(table: &RoutingTable, id: &str) -> Result<Model, ApiError> {
    let entry = find(table, Some(id))?;
    Ok(entry.describe(client_name(table, entry)))
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
