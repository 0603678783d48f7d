//! Watches pools, models, Deployments and pods, and listens to every pod: one `Observed` value, on every replica.
//! Reads only; what follows from it is decided by the planner, the controllers and the gateway.

mod demand;
mod lines;
mod observed;
mod routes;
mod snapshot;
mod watch;

pub use demand::{DemandMetrics, Demands, GatewayPod, Gateways, add_up};
pub use observed::{DELETION_COST, Observed, ObservedPod};
pub use routes::{ENGINE_PORT, routing_table};
pub(crate) use snapshot::believable;
pub use snapshot::{Told, snapshot};
pub use watch::{Index, IndexMetrics};
