//! Every decision of Easel, as pure functions over values: the same snapshot always gives the same plan.
//! Knows no Kubernetes, no runtime, no clock and no environment; whoever calls it brings the values.

pub mod autoscaler;
pub mod demand;
pub mod dispatch;
pub mod latency;
pub mod names;
pub mod placement;
pub mod plan;
pub mod report;
pub mod route;
pub mod scale;
pub mod simulate;
pub mod snapshot;
pub mod time;
pub mod traffic;
pub mod units;

pub use names::{ModelId, PoolName, ReplicaId, RouteId};
pub use plan::{FleetPlan, plan};
pub use scale::{Memory, scale};
pub use snapshot::Snapshot;
