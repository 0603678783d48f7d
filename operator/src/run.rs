//! Puts the parts together: which runs on every replica, which on the leader, and in what order they end.
//! Decides the order only; everything else is the parts'.

mod lead;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use easel_api::identity::Identity;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::{GatewayOnlyArgs, ProcessArgs, RunArgs};
use crate::control;
use crate::gateway::{self, Gateway, GatewayArgs, GatewayMetrics};
use crate::identity::{self, Kept};
use crate::index::{Demands, Index, IndexMetrics, Observed, routing_table};
use crate::leader::{Elector, LeaderMetrics};
use crate::observe::{self, Readiness};
use crate::routing_table::RoutingTable;
use lead::{Lead, LeadMetrics};

/// Parts that readiness waits for.
const IDENTITY: &str = "identity";
const INDEX: &str = "index";
const GATEWAY: &str = "gateway";
const SHUTDOWN: &str = "shutdown";

/// The operator, until `stop`.
pub async fn run(args: RunArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("failed to configure the API client")?;
    let mut registry = Registry::with_prefix("easel");
    let leader_metrics = LeaderMetrics::register(&mut registry);
    let lead_metrics = LeadMetrics::register(&mut registry);
    let plane = DataPlane::new(&client, &args.process, &args.gateway, &mut registry);
    let readiness = plane.readiness.clone();
    let mut servers = start_servers(&args.process, registry, &readiness);

    let (floor, heard) = watch::channel(0);
    // Another process of this pod's name, after a crash, must not be taken for this one.
    let me = format!("{}_{:08x}", args.process.pod_name, rand::random::<u32>());
    let namespace = &args.process.namespace;
    let elector = Elector::new(client.clone(), namespace, me, args.leader.clone(), leader_metrics, heard);
    let lead = Lead {
        settings: args.settings(),
        rotation: args.rotation,
        gateway_url: args.gateway_url(),
        pod_name: args.process.pod_name.clone(),
        observed: plane.observed.subscribe(),
        demand: plane.demand.clone(),
        control_port: args.process.control_listen.port(),
        floor,
        metrics: lead_metrics,
        client,
    };
    let (release, abdicate) = (CancellationToken::new(), stop.child_token());
    let leading = tokio::spawn(lead.follow(elector.term(), abdicate));
    let electing = tokio::spawn(elector.run(release.clone()));

    let served = tokio::select! {
        served = plane.serve(stop.clone()) => served,
        ended = servers.join_next() => ended.map_or(Ok(()), |ended| ended?),
    };
    stop.cancel();
    readiness.awaits(SHUTDOWN, "the process is stopping");
    // The leader's parts end before the Lease is given back: there are never two that write.
    leading.await.context("the leader's parts died")?;
    release.cancel();
    electing.await.context("the election died")?;
    info!("stopped");
    served
}

/// The data plane alone, until `stop`.
pub async fn gateway_only(args: GatewayOnlyArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("failed to configure the API client")?;
    let mut registry = Registry::with_prefix("easel");
    let plane = DataPlane::new(&client, &args.process, &args.gateway, &mut registry);
    let mut servers = start_servers(&args.process, registry, &plane.readiness);
    let served = tokio::select! {
        served = plane.serve(stop) => served,
        ended = servers.join_next() => ended.map_or(Ok(()), |ended| ended?),
    };
    info!("stopped");
    served
}

fn start_servers(process: &ProcessArgs, registry: Registry, readiness: &Readiness) -> JoinSet<anyhow::Result<()>> {
    let mut servers = JoinSet::new();
    servers.spawn(observe::probes(process.probe_listen, readiness.clone()));
    servers.spawn(observe::metrics(process.metrics_listen, Arc::new(registry)));
    servers
}

/// Index and gateway: the part of every replica.
struct DataPlane {
    client: Client,
    namespace: String,
    control_listen: SocketAddr,
    gateway: GatewayArgs,
    gateway_metrics: GatewayMetrics,
    index_metrics: IndexMetrics,
    observed: watch::Sender<Arc<Observed>>,
    /// Written by the leader.
    demand: watch::Sender<Arc<Demands>>,
    readiness: Readiness,
}

impl DataPlane {
    fn new(client: &Client, process: &ProcessArgs, gateway: &GatewayArgs, registry: &mut Registry) -> Self {
        let (gateway_metrics, readiness) = (GatewayMetrics::default(), Readiness::default());
        gateway_metrics.register(registry);
        readiness.awaits(IDENTITY, "the secret of the gateway's certificate is not there yet");
        readiness.awaits(INDEX, "not everything is listed yet");
        readiness.awaits(GATEWAY, "not listening yet");
        Self {
            client: client.clone(),
            namespace: process.namespace.clone(),
            control_listen: process.control_listen,
            gateway: gateway.clone(),
            gateway_metrics,
            index_metrics: IndexMetrics::register(registry),
            observed: watch::Sender::new(Arc::default()),
            demand: watch::Sender::new(Arc::default()),
            readiness,
        }
    }

    /// Until `stop` and the drain after it. The index goes on while requests under way finish.
    async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let Some(Kept { client: pod_client, credentials }) =
            keep_identity(&mut tasks, &self.client, &self.namespace, &stop).await
        else {
            return Ok(());
        };
        self.readiness.done(IDENTITY);
        let index = Index {
            client: self.client,
            namespace: self.namespace,
            pod_client: pod_client.clone(),
            demand: self.demand.subscribe(),
            metrics: self.index_metrics,
        };
        let (tables, receiver) = watch::channel(Arc::new(RoutingTable::default()));
        tasks.spawn(publish_tables(self.observed.subscribe(), tables, self.readiness.clone()));
        tasks.spawn(index.run(self.observed));
        let control = bind(self.control_listen, "control").await?;
        let listener = bind(self.gateway.gateway_listen, "gateway").await?;
        self.readiness.done(GATEWAY);
        let readiness = self.readiness.clone();
        let gateway = Gateway::new(self.gateway, pod_client, receiver, self.gateway_metrics);
        // Until the drain is over: what waits is asked for until then.
        tasks.spawn(control::serve(control, credentials, gateway.demand().clone()));
        let stopping = async {
            stop.cancelled().await;
            readiness.awaits(SHUTDOWN, "the process is stopping");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = gateway::serve(listener, gateway, stop.clone()) => served.context("the gateway failed"),
            () = stopping => Ok(()),
        }
    }
}

async fn bind(listen: SocketAddr, what: &'static str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("failed to listen on {listen} for {what}"))?;
    info!(address = %listener.local_addr()?, what, "listening");
    Ok(listener)
}

/// The gateway's identity, once its certificate is there; `None` when the process stops before.
async fn keep_identity(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &str,
    stop: &CancellationToken,
) -> Option<Kept> {
    let (first, ready) = oneshot::channel();
    let (client, namespace) = (client.clone(), namespace.to_owned());
    tasks.spawn(async move { identity::keep(client, &namespace, Identity::Gateway, first).await });
    tokio::select! {
        kept = ready => kept.inspect_err(|_| warn!("the identity's watch ended")).ok(),
        () = stop.cancelled() => None,
    }
}

async fn publish_tables(
    mut observed: watch::Receiver<Arc<Observed>>,
    tables: watch::Sender<Arc<RoutingTable>>,
    readiness: Readiness,
) {
    while observed.changed().await.is_ok() {
        let table = routing_table(&observed.borrow_and_update());
        if table.complete {
            readiness.done(INDEX);
        }
        tables.send_if_modified(|held| {
            let changed = **held != table;
            if changed {
                *held = Arc::new(table);
            }
            changed
        });
    }
}
