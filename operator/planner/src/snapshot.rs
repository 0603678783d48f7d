//! What the planner looks at: pools, models and replicas as they are observed at one moment.
//! Holds values only; whoever fills it has already checked that each object is valid by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::latency::StepTimes;
use crate::names::{ModelId, PoolName, ReplicaId, RouteId};
use crate::traffic::Route;
use crate::units::{Bytes, MicroUsd, MicroUsdPerHour, Speed};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub pools: BTreeMap<PoolName, Pool>,
    pub models: BTreeMap<ModelId, Model>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
    pub routes: BTreeMap<RouteId, Route>,
    /// What was measured, of replicas that may be gone.
    pub steps: StepTimes,
    /// What clients ask for, of models that anybody asks for.
    pub demand: BTreeMap<ModelId, Asked>,
}

/// What clients ask of one model, at all gateways together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests that wait in a gateway and have no pod.
    pub waiting: u32,
    /// Model calls of those.
    pub waiting_calls: u64,
    /// Requests that came within the last minute, and their model calls.
    pub arrived: u32,
    pub arrived_calls: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Of one replica.
    pub price: MicroUsdPerHour,
    pub capacity: Capacity,
    /// For models, in one replica.
    pub memory: Bytes,
    /// For models that wait in main memory, in one replica; 0 where there is no such tier.
    pub host_cache: Bytes,
    /// What a model that nobody has measured there is expected to run at.
    pub relative_speed: Speed,
    /// How many times its memory a replica may hold in turns: 1 gives every model a seat of its own, or none.
    pub overcommit: u32,
    /// Replicas that are kept beside those that hold something, as far as the limits leave room.
    pub warm_spares: u32,
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
    /// Wanted now: the least, or what demand asks for, once `scale` has said so.
    pub replicas: u32,
    pub min_replicas: u32,
    pub max_replicas: Option<u32>,
    /// Of one picture by the defaults: a pool where it would cost more takes no replica.
    pub max_per_image: Option<MicroUsd>,
    /// Of all replicas, each counted with its whole price, whoever shares it.
    pub max_per_hour: Option<MicroUsdPerHour>,
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
    /// The share of requests that must be that fast, in percent.
    pub percentile: u32,
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
