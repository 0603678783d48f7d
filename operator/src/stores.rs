//! What the leader asks of others for checkpoints: the Secrets that models name, and what tags stand for.
//! Nothing of it is stored but the digest of a tag; pods alone fetch a checkpoint's bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use easel_crds::{Adapter, ImageModel};
use easel_planner::ModelId;

mod access;
mod docker_config;
mod secrets;
mod tags;

pub use access::{Credential, credential};
pub use secrets::{Contents, SecretKey, Secrets, SecretsReader};
pub use tags::{Tag, TagFailure, TagResolver, Tags};

use crate::index::Observed;
use crate::wire;

/// What the leader knows of the stores of all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub credentials: BTreeMap<ModelId, Credential>,
    /// Of models' adapters, by their names.
    pub adapters: BTreeMap<ModelId, BTreeMap<String, Credential>>,
    pub tags: Arc<Tags>,
}

impl Known {
    pub fn new(observed: &Observed, secrets: &Secrets, tags: Arc<Tags>) -> Self {
        let credential = |(id, model): (&ModelId, &Arc<ImageModel>)| Some((id.clone(), of(model, secrets)?));
        let adapters = |(id, model): (&ModelId, &Arc<ImageModel>)| (id.clone(), of_adapters(model, secrets));
        Self {
            credentials: observed.models.iter().filter_map(credential).collect(),
            adapters: observed.models.iter().map(adapters).collect(),
            tags,
        }
    }
}

/// `None` for a model whose checkpoint leads nowhere.
fn of(model: &ImageModel, secrets: &Secrets) -> Option<Credential> {
    let source = wire::place(model).ok()?.source;
    let name = model.spec.checkpoint.secret_ref.as_ref().map(|secret| secret.name.as_str());
    Some(credential(model.metadata.namespace.as_deref()?, name, &source, secrets))
}

/// Adapters that lead nowhere are left out.
fn of_adapters(model: &ImageModel, secrets: &Secrets) -> BTreeMap<String, Credential> {
    let namespace = model.metadata.namespace.as_deref().unwrap_or_default();
    let of = |adapter: &Adapter| {
        let secret = adapter.secret_ref.as_ref().map(|secret| secret.name.as_str());
        let found = credential(namespace, secret, &wire::adapter_source(adapter).ok()?, secrets);
        Some((adapter.name.clone(), found))
    };
    model.spec.adapters.iter().filter_map(of).collect()
}
