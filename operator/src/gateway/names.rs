//! Which model a client means: `name` where one namespace has it, `namespace/name` always.
//! A function of the table; knows no HTTP and no request but its `model`.

use std::collections::BTreeMap;

use easel_api::error::ApiError;
use easel_api::images::{Model, ModelList};
use easel_planner::ModelId;

use crate::routing_table::{RoutingTable, ServedModel};

/// Names in a message: enough to see the typing error, few enough to read.
const MAX_LISTED: usize = 20;

type Models = BTreeMap<ModelId, ServedModel>;

/// The model that `wanted` names, or the only one there is.
pub(super) fn resolve<'a>(
    table: &'a RoutingTable,
    wanted: Option<&str>,
) -> Result<(&'a ModelId, &'a ServedModel), ApiError> {
    if !table.complete {
        return Err(ApiError::unavailable("starting", "the gateway is starting and does not know its models yet", 1));
    }
    match wanted {
        Some(name) => named(&table.models, name),
        None => only(&table.models),
    }
}

fn named<'a>(models: &'a Models, wanted: &str) -> Result<(&'a ModelId, &'a ServedModel), ApiError> {
    // No name of Kubernetes has a slash, so one in `wanted` means that the namespace is said.
    let found: Vec<_> = match wanted.split_once('/') {
        Some((namespace, name)) => with_name(models, name).filter(|(_, model)| model.namespace == namespace).collect(),
        None => with_name(models, wanted).collect(),
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

fn only(models: &Models) -> Result<(&ModelId, &ServedModel), ApiError> {
    let all: Vec<_> = models.iter().collect();
    match all[..] {
        [one] => Ok(one),
        [] => Err(ApiError::invalid("model", "missing_model", "model is missing, and no model is served here yet")),
        [_, _, ..] => {
            let names: Vec<String> = all.iter().take(MAX_LISTED).map(|(_, model)| client_name(models, model)).collect();
            let message = format!("model is missing; it can be {}{}", names.join(", "), more(all.len()));
            Err(ApiError::invalid("model", "missing_model", message))
        }
    }
}

fn with_name<'a>(models: &'a Models, name: &str) -> impl Iterator<Item = (&'a ModelId, &'a ServedModel)> {
    models.iter().filter(move |(_, model)| model.name == name)
}

fn list(found: &[(&ModelId, &ServedModel)]) -> String {
    let names: Vec<String> = found.iter().take(MAX_LISTED).map(|(_, model)| full_name(model)).collect();
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

/// The shortest name that means this model and no other.
fn client_name(models: &Models, model: &ServedModel) -> String {
    match with_name(models, &model.name).nth(1) {
        None => model.name.clone(),
        Some(_) => full_name(model),
    }
}

/// `GET /v1/models`.
pub(super) fn all(table: &RoutingTable) -> ModelList {
    // Counted once: looking each name up among all would be quadratic in the models.
    let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
    for model in table.models.values() {
        *owners.entry(&model.name).or_default() += 1;
    }
    let id = |model: &ServedModel| if owners[&*model.name] == 1 { model.name.clone() } else { full_name(model) };
    let data = table.models.values().map(|model| describe(model, id(model))).collect();
    ModelList { object: "list".into(), data }
}

/// `GET /v1/models/{id}`.
pub(super) fn one(table: &RoutingTable, id: &str) -> Result<Model, ApiError> {
    let (_, model) = resolve(table, Some(id))?;
    Ok(describe(model, client_name(&table.models, model)))
}

fn describe(model: &ServedModel, id: String) -> Model {
    Model { id, object: "model".into(), created: model.created, owned_by: model.namespace.clone() }
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
