//! The data plane: OpenAI's Images API for clients, drawn by whichever pod is best, whatever happens to pods meanwhile.
//! Reads the routing table and calls pods; writes nothing, knows no controller and no Kubernetes.
//!
//! One request goes admit → queue → route → proxy, a file each, in the order that `generations` gives them; `edits` differs
//! in what it reads, and `stream` in that it passes on events as they come.
//!
//! Memory is bounded by flags. A connection holds at most 64 KiB of buffers and one request; a request is at most 1 MiB
//! while it is read, and what is kept of it until it is answered is about as long as its prompts. Answers are held whole
//! until their last byte is sent, because a half-sent one could not be drawn again elsewhere, and so is each event of a
//! stream; together they take at most
//! `--response-memory-mib`, or one answer if that is larger. Pictures that shall be edited, up to 8 MiB each, are counted
//! in all their copies and take at most `--edit-memory-mib` together; while that is full, further ones are not read.
//! Snapshots of pictures on their way take at most `--snapshot-memory-mib` together, and are thrown away while that is full.
//! So at most `max-connections` × (1 MiB + 128 KiB) + `response-memory-mib` + `edit-memory-mib` + `snapshot-memory-mib`, and
//! that only if every client sends the largest request.

mod admit;
mod args;
mod body;
mod demand;
mod edits;
mod generations;
mod http;
mod metrics;
mod names;
mod observe;
mod proxy;
mod queue;
pub(crate) mod render;
mod route;
mod server;
mod snapshots;
pub(crate) mod stall;
mod stream;
mod terms;
mod tries;

use std::sync::Arc;

pub use args::GatewayArgs;
pub use demand::Demand;
pub use metrics::GatewayMetrics;
pub use server::serve;

use crate::pod_client::PodClient;
use crate::routing_table::{RoutingTable, RoutingTables};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    args: GatewayArgs,
    client: PodClient,
    tables: RoutingTables,
    metrics: GatewayMetrics,
    demand: Demand,
    queue: queue::Queue,
    memory: proxy::Memory,
    uploads: proxy::Memory,
    snapshots: proxy::Memory,
}

impl Gateway {
    /// `client` has the gateway's own identity; `metrics` are registered by the caller.
    pub fn new(args: GatewayArgs, client: PodClient, tables: RoutingTables, metrics: GatewayMetrics) -> Self {
        let demand = Demand::new();
        let queue = queue::Queue::new(tables.clone(), args.max_waiting, metrics.waiting.clone(), demand.clone());
        let memory = proxy::Memory::new(args.response_memory_mib);
        let uploads = proxy::Memory::new(args.edit_memory_mib);
        let snapshots = proxy::Memory::new(args.snapshot_memory_mib);
        Self { shared: Arc::new(Shared { args, client, tables, metrics, demand, queue, memory, uploads, snapshots }) }
    }

    /// What clients ask it for.
    pub fn demand(&self) -> &Demand {
        &self.shared.demand
    }

    fn args(&self) -> &GatewayArgs {
        &self.shared.args
    }

    fn client(&self) -> &PodClient {
        &self.shared.client
    }

    fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.shared.tables.borrow())
    }

    fn metrics(&self) -> &GatewayMetrics {
        &self.shared.metrics
    }

    fn queue(&self) -> &queue::Queue {
        &self.shared.queue
    }

    fn memory(&self) -> &proxy::Memory {
        &self.shared.memory
    }

    fn uploads(&self) -> &proxy::Memory {
        &self.shared.uploads
    }

    /// None yet, of a request for so many pictures.
    fn snapshots(&self, pictures: u32) -> snapshots::Snapshots {
        snapshots::Snapshots::new(self.shared.snapshots.clone(), self.shared.metrics.clone(), pictures)
    }
}
