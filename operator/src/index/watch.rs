//! The index's one task: owns what is observed, and publishes it whenever something changed.
//! Watches with reflectors and listens to pods; interprets nothing but names.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use easel_api::engine::{REPORT_PATH, Report};
use easel_crds::planner::{model_id, pool_name, route_id};
use easel_crds::{GpuPool, ImageModel, ImageRoute};
use easel_planner::ReplicaId;
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::lines::{self, ListenTo, Listeners, nothing_known};
use super::routes::address;
use super::{Demands, Observed, ObservedPod};
use crate::names::managed_selector;
use crate::pod_client::PodClient;

/// Two publications are at least this far apart; what a gateway decides by is at most this much older.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// Reports that wait for the task; a full channel slows the listeners down, not the pods.
const REPORTS_WAITING: usize = 1024;

#[derive(Clone, Debug, Default)]
pub struct IndexMetrics {
    watch_errors: Family<Kind, Counter>,
    pods: Gauge,
    reporting: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl IndexMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("watch_errors", "Watches that failed and were begun again", metrics.watch_errors.clone());
        registry.register("pods", "Inference pods that exist", metrics.pods.clone());
        registry.register("pods_reporting", "Inference pods that answer", metrics.reporting.clone());
        metrics
    }
}

pub struct Index {
    pub client: Client,
    /// Where Shared pods are.
    pub namespace: String,
    pub pod_client: PodClient,
    /// What the leader hears of gateways; empty elsewhere.
    pub demand: watch::Receiver<Arc<Demands>>,
    pub metrics: IndexMetrics,
}

type Heard = lines::Heard<ReplicaId, Report>;

struct Stores {
    pools: Store<GpuPool>,
    models: Store<ImageModel>,
    routes: Store<ImageRoute>,
    deployments: Store<Deployment>,
    pods: Store<Pod>,
}

impl Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Index {
    /// Until it is dropped.
    pub async fn run(mut self, observed: watch::Sender<Arc<Observed>>) {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        let ours = watcher::Config::default().labels(&managed_selector());
        let stores = Stores {
            pools: self.reflect(&mut watches, Api::all(self.client.clone()), watcher::Config::default(), &changed),
            models: self.reflect(&mut watches, Api::all(self.client.clone()), watcher::Config::default(), &changed),
            routes: self.reflect(&mut watches, Api::all(self.client.clone()), watcher::Config::default(), &changed),
            deployments: self.reflect(&mut watches, all(&self.client), ours.clone(), &changed),
            pods: self.reflect(&mut watches, all(&self.client), ours, &changed),
        };
        let (heard, mut reports) = mpsc::channel(REPORTS_WAITING);
        let mut listeners = Listeners::new(self.pod_client.clone(), REPORT_PATH, heard);
        let mut current = Observed::default();
        loop {
            tokio::select! {
                () = changed.notified() => {
                    current = self.read(&stores, current, stores.complete());
                    listeners.follow(reporting(&current));
                }
                Some(news) = reports.recv() => hear(&mut current, news),
                Ok(()) = self.demand.changed() => current.demand = self.demand.borrow_and_update().clone(),
            }
            while let Ok(news) = reports.try_recv() {
                hear(&mut current, news);
            }
            self.publish(&observed, &current);
            tokio::time::sleep(PUBLISH_EVERY).await;
        }
    }

    fn reflect<K>(
        &self,
        tasks: &mut JoinSet<()>,
        api: Api<K>,
        config: watcher::Config,
        changed: &Arc<Notify>,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let stream = watcher(api, config).default_backoff().modify(|object| object.managed_fields_mut().clear());
        let (changed, errors) = (changed.clone(), self.metrics.watch_errors.clone());
        let kind = Kind { kind: std::any::type_name::<K>().rsplit("::").next().unwrap_or_default() };
        tasks.spawn(async move {
            let mut events = std::pin::pin!(reflector::reflector(writer, stream));
            while let Some(event) = events.next().await {
                match event {
                    // Lists come object by object; the last of them says that they are all there.
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                    Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)) => {
                        changed.notify_one();
                    }
                    Err(error) => {
                        errors.get_or_create(&kind).inc();
                        warn!(kind = kind.kind, %error, "watch failed");
                    }
                }
            }
        });
        store
    }

    fn read(&self, stores: &Stores, former: Observed, complete: bool) -> Observed {
        let pods: BTreeMap<_, _> = stores
            .pods
            .state()
            .iter()
            .filter_map(|pod| ObservedPod::parse(pod, &self.namespace))
            .map(|(id, pod)| (id, Arc::new(pod)))
            .collect();
        // A pod of the same name may be another pod.
        let same =
            |id: &ReplicaId| pods.get(id).zip(former.pods.get(id)).is_some_and(|(now, before)| now.uid == before.uid);
        let mut reports = former.reports;
        reports.retain(|id, _| same(id));
        if complete && !former.complete {
            info!(pods = pods.len(), "index complete");
        }
        Observed {
            complete: complete || former.complete,
            pools: stores.pools.state().into_iter().filter_map(|pool| Some((pool_name(&pool).ok()?, pool))).collect(),
            models: stores.models.state().into_iter().filter_map(|m| Some((model_id(&m).ok()?, m))).collect(),
            routes: stores.routes.state().into_iter().filter_map(|r| Some((route_id(&r).ok()?, r))).collect(),
            deployments: stores
                .deployments
                .state()
                .into_iter()
                .map(|d| ((d.namespace().unwrap_or_default(), d.name_any()), d))
                .collect(),
            pods,
            reports,
            demand: former.demand,
        }
    }

    fn publish(&self, observed: &watch::Sender<Arc<Observed>>, current: &Observed) {
        self.metrics.pods.set(i64::try_from(current.pods.len()).unwrap_or(i64::MAX));
        self.metrics.reporting.set(i64::try_from(current.reports.len()).unwrap_or(i64::MAX));
        observed.send_if_modified(|held| {
            let changed = **held != *current;
            if changed {
                *held = Arc::new(current.clone());
            }
            changed
        });
    }
}

impl Stores {
    fn complete(&self) -> bool {
        use futures::FutureExt;
        let Self { pools, models, routes, deployments, pods } = self;
        let ready = join_all([
            pools.wait_until_ready().map(|ready| ready.is_ok()).boxed(),
            models.wait_until_ready().map(|ready| ready.is_ok()).boxed(),
            routes.wait_until_ready().map(|ready| ready.is_ok()).boxed(),
            deployments.wait_until_ready().map(|ready| ready.is_ok()).boxed(),
            pods.wait_until_ready().map(|ready| ready.is_ok()).boxed(),
        ]);
        ready.now_or_never().is_some_and(|ready| ready.into_iter().all(|ready| ready))
    }
}

fn all<K>(client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::all(client.clone())
}

/// Pods that have an address.
fn reporting(current: &Observed) -> BTreeMap<ReplicaId, ListenTo> {
    let listen_to = |id: &ReplicaId, pod: &ObservedPod| {
        Some(ListenTo { uid: pod.uid.clone(), pod: address(pod, nothing_known(id.clone()))? })
    };
    current.pods.iter().filter_map(|(id, pod)| Some((id.clone(), listen_to(id, pod)?))).collect()
}

fn hear(current: &mut Observed, lines::Heard { id, uid, said }: Heard) {
    if current.pods.get(&id).is_none_or(|pod| pod.uid != uid) {
        return; // said before it went
    }
    match said {
        Some(report) => drop(current.reports.insert(id, Arc::new(report))),
        None => drop(current.reports.remove(&id)),
    }
}
