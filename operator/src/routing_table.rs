//! What the gateway routes by: the models and routes that clients may name, and the pods that may answer.
//! Written by the index on every replica of the operator, read by the gateway; holds values only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use easel_api::engine::{ModelDefaults, ModelLimits};
use easel_api::images::Task;
use easel_planner::route::Endpoint;
use easel_planner::traffic::{Backend, RouteClass, Tenant};
use easel_planner::{ModelId, ReplicaId, RouteId};
use tokio::sync::watch;

/// The newest table. Every change is a new value; readers keep the one they hold for as long as a request needs it.
pub type RoutingTables = watch::Receiver<Arc<RoutingTable>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    /// False until the index has listed everything once: nothing may be called unknown before.
    pub complete: bool,
    pub models: BTreeMap<ModelId, ServedModel>,
    /// Those that have their name.
    pub routes: BTreeMap<RouteId, ServedRoute>,
    pub pods: BTreeMap<ReplicaId, Pod>,
}

/// An ImageModel as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedModel {
    pub namespace: String,
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The digest that shall be served.
    pub digest: String,
    pub defaults: ModelDefaults,
    pub limits: ModelLimits,
    /// By name.
    pub adapters: Vec<String>,
    /// What its checkpoint can do; empty until a pod that holds it has said.
    pub tasks: Vec<Task>,
    /// `replicas.min` is 0.
    pub parked: bool,
    /// Of requests that name the model itself and no route.
    pub terms: Terms,
}

/// An ImageRoute as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedRoute {
    pub namespace: String,
    /// What clients send as `model`.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Those whose models exist, the first to be asked first.
    pub backends: Vec<Backend>,
    pub terms: Terms,
}

/// On which terms requests are served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    pub classes: Vec<RouteClass>,
    /// Of requests that name none.
    pub default_class: Option<String>,
    pub tenants: Vec<Tenant>,
}

/// A pod that has reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub endpoint: Endpoint,
    pub address: IpAddr,
    pub port: u16,
    /// Deployment and namespace: what its server certificate is for.
    pub deployment: String,
    pub namespace: String,
    pub pool: String,
}
