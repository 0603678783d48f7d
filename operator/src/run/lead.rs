//! What the leader does, as long as it leads: certificates, planning, controllers.
//! Everything here writes, so all of it ends at once when the term does.

use std::sync::Arc;
use std::time::Duration;

use easel_api::identity::Identity;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::controller::{self, Chain, Context, ControllerMetrics, Settings};
use crate::identity::{self, Issuer, Kept, RotationArgs};
use crate::index::{DemandMetrics, Demands, Gateways, Observed};
use crate::leader::Term;
use crate::names::OPERATOR;
use crate::planning::{PlanMetrics, Planning};
use crate::pod_client::PodClient;
use crate::stores::{SecretsReader, TagResolver};

const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct LeadMetrics {
    demand: DemandMetrics,
    plan: PlanMetrics,
    controller: ControllerMetrics,
}

impl LeadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            demand: DemandMetrics::register(registry),
            plan: PlanMetrics::register(registry),
            controller: ControllerMetrics::register(registry),
        }
    }
}

pub(super) struct Lead {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) rotation: RotationArgs,
    pub(super) gateway_url: Option<String>,
    pub(super) pod_name: String,
    pub(super) observed: watch::Receiver<Arc<Observed>>,
    /// Where what clients ask for is told to the index.
    pub(super) demand: watch::Sender<Arc<Demands>>,
    /// Of gateways.
    pub(super) control_port: u16,
    pub(super) floor: watch::Sender<u64>,
    pub(super) metrics: LeadMetrics,
}

impl Lead {
    /// Leads whenever there is a term, until `stop`. A term that ends takes all of its tasks with it, in the middle of
    /// whatever they do.
    pub(super) async fn follow(self, mut terms: watch::Receiver<Term>, stop: CancellationToken) {
        loop {
            let term = *terms.borrow_and_update();
            let leading = async {
                match term {
                    Some(term) => Box::pin(self.lead(term)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = terms.changed() => if changed.is_err() { return },
                () = leading => {}
            }
        }
    }

    async fn lead(&self, term: u64) {
        let issuer = self.issuer().await;
        let looking_after = identity::look_after(&issuer, &self.rotation);
        let (first, ready) = oneshot::channel();
        let keeping = identity::keep(self.client.clone(), &self.settings.namespace, Identity::Operator, first);
        let working = async {
            let Ok(Kept { client: pod_client, credentials: _ }) = ready.await else { return };
            info!(term, "leading");
            let (views, shown) = watch::channel(None);
            let ((secrets, read), (tags, resolved)) = (watch::channel(Arc::default()), watch::channel(Arc::default()));
            let reader = SecretsReader { client: self.client.clone(), observed: self.observed.clone(), secrets };
            let tag_resolver = TagResolver { observed: self.observed.clone(), secrets: read.clone(), tags };
            let gateways = self.gateways(pod_client.clone());
            let planning = Planning {
                term,
                observed: self.observed.clone(),
                secrets: read,
                tags: resolved,
                client: pod_client,
                floor: self.floor.clone(),
                views,
                metrics: self.metrics.plan.clone(),
            };
            let context = Context::new(
                self.client.clone(),
                self.settings.clone(),
                self.gateway_url.clone(),
                shown,
                issuer.clone(),
                self.recorder(),
                self.metrics.controller.clone(),
            );
            let asking = async { tokio::join!(reader.run(), tag_resolver.run()) };
            tokio::join!(asking, gateways.run(), planning.run(), controller::run(Arc::new(context)));
        };
        tokio::select! {
            () = looking_after => {}
            () = keeping => {}
            () = working => {}
        }
    }

    async fn issuer(&self) -> Issuer {
        loop {
            match Issuer::open(self.client.clone(), &self.settings.namespace).await {
                Ok(issuer) => return issuer,
                Err(error) => warn!(error = %Chain(&error), "failed to open the authority"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn gateways(&self, pod_client: PodClient) -> Gateways {
        Gateways {
            client: self.client.clone(),
            namespace: self.settings.namespace.clone(),
            pod_client,
            port: self.control_port,
            metrics: self.metrics.demand.clone(),
            demand: self.demand.clone(),
        }
    }

    fn recorder(&self) -> Recorder {
        let reporter = Reporter { controller: OPERATOR.into(), instance: Some(self.pod_name.clone()) };
        Recorder::new(self.client.clone(), reporter)
    }
}
