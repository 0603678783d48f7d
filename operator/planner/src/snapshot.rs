//! What the planner looks at: pools, models and replicas as they are observed at one moment.
//! Holds values only; whoever fills it has already checked that each object is valid by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{ModelId, PoolName, ReplicaId};
use crate::units::{Bytes, MicroUsdPerHour};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub pools: BTreeMap<PoolName, Pool>,
    pub models: BTreeMap<ModelId, Model>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Of one replica.
    pub price: MicroUsdPerHour,
    pub capacity: Capacity,
    /// For models, in one replica.
    pub memory: Bytes,
    pub max_replicas: u32,
    pub max_cost: Option<MicroUsdPerHour>,
    /// Deletion was asked for: it keeps what it has until that is gone, and takes nothing new.
    pub leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capacity {
    OnDemand,
    Spot,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Of the checkpoint that shall be served.
    pub digest: String,
    pub memory: Bytes,
    pub placement: Placement,
    /// In order of preference; empty means any.
    pub pools: Vec<PoolName>,
    pub min_replicas: u32,
    /// Model calls of a request that does not say, for predictions.
    pub default_steps: u32,
    pub slos: Vec<Slo>,
    pub leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Shared,
    Dedicated,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    pub class: String,
    pub latency: Duration,
}

/// A pod, ready or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub pool: PoolName,
    pub tenancy: Tenancy,
    pub phase: ReplicaPhase,
    /// What it says it holds, or was told to hold, or nothing yet.
    pub residents: BTreeMap<ModelId, Resident>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tenancy {
    Shared,
    Dedicated(ModelId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaPhase {
    /// May take models.
    Current,
    /// Made from an older pod template: serves what it has until a current replica has taken its place.
    Outdated,
    /// Is going away.
    Leaving,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    pub digest: String,
    pub ready: bool,
    /// Mean time of one denoising step, once measured.
    pub step: Option<Duration>,
}
