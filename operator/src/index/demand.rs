//! What clients ask for at all gateways together: the leader listens to each of them and adds up.
//! Knows which pods are gateways; how many replicas demand is worth is the planner's to say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use easel_api::demand::{DEMAND_PATH, DemandReport, ModelDemand};
use easel_planner::snapshot::Asked;
use easel_planner::{ModelId, ReplicaId};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::lines::{Heard, ListenTo, Listeners, SILENCE, nothing_known};
use crate::names::{OPERATOR, control_plane_selector};
use crate::pod_client::PodClient;
use crate::routing_table;

/// Lines that wait to be added up; a full channel slows the listeners down, not the gateways.
const LINES_WAITING: usize = 64;

/// Of models that anybody asks for.
pub type Demands = BTreeMap<ModelId, Asked>;

#[derive(Clone, Debug, Default)]
pub struct DemandMetrics {
    gateways: Gauge,
}

impl DemandMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Gateways whose demand the leader hears; 0 where it does not lead";
        registry.register("gateways_reporting", help, metrics.gateways.clone());
        metrics
    }
}

/// A pod that runs a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayPod {
    pub name: String,
    pub uid: String,
    pub address: IpAddr,
    /// Of its control server.
    pub port: u16,
}

/// All that are in the operator's namespace.
pub struct Gateways {
    pub client: Client,
    pub namespace: String,
    /// With the operator's identity: nobody else may listen.
    pub pod_client: PodClient,
    pub port: u16,
    pub metrics: DemandMetrics,
    pub demand: watch::Sender<Arc<Demands>>,
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateways").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Gateways {
    /// Until it is dropped; nothing is asked then.
    pub async fn run(self) {
        let Self { client, namespace, pod_client, port, metrics, demand } = self;
        let (pods, followed) = watch::channel(Vec::new());
        let adding = add_up(pod_client, &namespace, followed, demand, metrics);
        tokio::join!(follow(client, &namespace, port, pods), adding);
    }
}

async fn follow(client: Client, namespace: &str, port: u16, pods: watch::Sender<Vec<GatewayPod>>) {
    let config = watcher::Config::default().labels(&control_plane_selector());
    let (store, writer) = reflector::store();
    let events = watcher(Api::<Pod>::namespaced(client, namespace), config).default_backoff();
    let mut events = pin!(reflector(writer, events));
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            warn!(%error, "failed to watch the gateways' pods");
            continue;
        }
        let mut found: Vec<_> = store.state().iter().filter_map(|pod| gateway(pod, port)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        pods.send_if_modified(|held| {
            let changed = *held != found;
            *held = found;
            changed
        });
    }
}

/// One that is ending still holds requests that wait; one that has ended does not.
fn gateway(pod: &Pod, port: u16) -> Option<GatewayPod> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref().is_some_and(|phase| phase == "Succeeded" || phase == "Failed") {
        return None;
    }
    Some(GatewayPod {
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone()?,
        address: status.pod_ip.as_deref()?.parse().ok()?,
        port,
    })
}

/// Listens to these and publishes the sum, until it is dropped.
pub async fn add_up(
    client: PodClient,
    namespace: &str,
    mut pods: watch::Receiver<Vec<GatewayPod>>,
    demand: watch::Sender<Arc<Demands>>,
    metrics: DemandMetrics,
) {
    let (heard, mut said) = mpsc::channel(LINES_WAITING);
    let mut listeners = Listeners::new(client, DEMAND_PATH, heard);
    let mut shares = Shares::default();
    let published = Published { demand, metrics };
    pods.mark_changed();
    loop {
        tokio::select! {
            Ok(()) = pods.changed() => {
                let pods = pods.borrow_and_update().clone();
                shares.keep(&pods);
                listeners.follow(pods.into_iter().map(|pod| (pod.name.clone(), listen_to(pod, namespace))).collect());
            }
            Some(news) = said.recv() => shares.hear(news, Instant::now()),
            () = until(shares.next_silence()) => {}
        }
        shares.forget_silent(Instant::now());
        published.publish(&shares);
    }
}

fn listen_to(GatewayPod { name, uid, address, port }: GatewayPod, namespace: &str) -> ListenTo {
    let pod = routing_table::Pod {
        endpoint: nothing_known(ReplicaId::new(format!("{namespace}/{name}"))),
        address,
        port,
        deployment: OPERATOR.to_owned(),
        namespace: namespace.to_owned(),
        pool: String::new(),
    };
    ListenTo { uid, pod }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the last term's leader heard is nobody's: it is taken back with the task.
struct Published {
    demand: watch::Sender<Arc<Demands>>,
    metrics: DemandMetrics,
}

impl Published {
    fn publish(&self, shares: &Shares) {
        self.metrics.gateways.set(i64::try_from(shares.0.len()).unwrap_or(i64::MAX));
        let sum = shares.sum();
        self.demand.send_if_modified(|held| {
            let changed = **held != sum;
            if changed {
                *held = Arc::new(sum);
            }
            changed
        });
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.publish(&Shares::default());
    }
}

/// By gateway.
#[derive(Debug, Default)]
struct Shares(BTreeMap<String, Share>);

#[derive(Debug)]
struct Share {
    uid: String,
    report: DemandReport,
    heard: Instant,
}

impl Shares {
    fn hear(&mut self, Heard { id, uid, said }: Heard<String, DemandReport>, now: Instant) {
        match said {
            Some(report) => drop(self.0.insert(id, Share { uid, report, heard: now })),
            None => drop(self.0.remove(&id)),
        }
    }

    /// Of these, and of no pod that had such a name before.
    fn keep(&mut self, pods: &[GatewayPod]) {
        self.0.retain(|name, share| pods.iter().any(|pod| pod.name == *name && pod.uid == share.uid));
    }

    fn next_silence(&self) -> Option<Instant> {
        self.0.values().map(|share| share.heard + SILENCE).min()
    }

    fn forget_silent(&mut self, now: Instant) {
        self.0.retain(|_, share| share.heard + SILENCE > now);
    }

    fn sum(&self) -> Demands {
        let mut sum = Demands::new();
        for demand in self.0.values().flat_map(|share| &share.report.models) {
            let ModelDemand { id, waiting, waiting_calls, arrived, arrived_calls } = demand;
            let asked = sum.entry(ModelId::new(id.as_str())).or_default();
            *asked = Asked {
                waiting: asked.waiting.saturating_add(*waiting),
                waiting_calls: asked.waiting_calls.saturating_add(*waiting_calls),
                arrived: asked.arrived.saturating_add(*arrived),
                arrived_calls: asked.arrived_calls.saturating_add(*arrived_calls),
            };
        }
        sum
    }
}

#[cfg(test)]
mod tests;
