//! Makes of the plan what Kubernetes holds: one controller a kind, `fetch → validate → build → apply → status`.
//! Runs on the leader only; decides nothing that the plan has decided.

mod apply;
mod build;
mod memo;
mod model;
mod pool;
mod route;
mod shape;
mod status;

use std::sync::Arc;
use std::time::Duration;

use easel_crds::{GpuPool, ImageModel, ImageRoute};
use futures::StreamExt;
use kube::api::Api;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tracing::{debug, warn};

use crate::identity::Issuer;
use crate::planning::Views;
pub use apply::ApplyError;
pub use build::{Settings, StoreEgress};
use memo::Memo;
pub use pool::strip as strip_finalizer;
use status::Written;

/// After a failure; the API server's own limits keep many of them apart.
const RETRY: Duration = Duration::from_secs(5);
/// After somebody else wrote in between: the watch brings what they wrote within moments.
const RETRY_CONFLICT: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    reconciles: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Done,
    Conflict,
    Failed,
}

impl ControllerMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("reconciles", "Reconciliations by kind and outcome", metrics.reconciles.clone());
        metrics
    }
}

/// What reconciling needs. One a term.
pub struct Context {
    pub client: Client,
    pub settings: Settings,
    /// Shown to users as the place to send requests to.
    pub gateway_url: Option<String>,
    pub views: Views,
    pub issuer: Issuer,
    pub recorder: Recorder,
    pub metrics: ControllerMetrics,
    memo: Memo,
    written: Written,
}

/// What a reconcile can fail with. A refusal is no failure: it is shown in the status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to apply")]
    Apply(#[from] ApplyError),
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
    #[error("failed to change the finalizers")]
    Finalizer(#[source] Box<kube::Error>),
}

impl Error {
    fn is_conflict(&self) -> bool {
        let conflict = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.is_conflict());
        match self {
            Self::Apply(error) => error.is_conflict(),
            Self::Status(error) | Self::Finalizer(error) => conflict(error),
        }
    }
}

impl Context {
    pub fn new(
        client: Client,
        settings: Settings,
        gateway_url: Option<String>,
        views: Views,
        issuer: Issuer,
        recorder: Recorder,
        metrics: ControllerMetrics,
    ) -> Self {
        let (memo, written) = (Memo::default(), Written::default());
        Self { client, settings, gateway_url, views, issuer, recorder, metrics, memo, written }
    }

    fn count<K: Resource<DynamicType = ()>>(&self, outcome: Outcome) {
        let kind = std::any::type_name::<K>().rsplit("::").next().unwrap_or_default();
        self.metrics.reconciles.get_or_create(&Labels { kind, outcome }).inc();
    }
}

/// All controllers, until this is dropped; reconciles under way end with it.
pub async fn run(context: Arc<Context>) {
    let pools = Controller::<GpuPool>::new(Api::all(context.client.clone()), watcher::Config::default())
        .reconcile_all_on(triggers(&context.views))
        .run(pool::reconcile, retry, context.clone())
        .for_each(|result| async { log(result) });
    let models = Controller::<ImageModel>::new(Api::all(context.client.clone()), watcher::Config::default())
        .reconcile_all_on(triggers(&context.views))
        .run(model::reconcile, retry, context.clone())
        .for_each(|result| async { log(result) });
    let routes = Controller::<ImageRoute>::new(Api::all(context.client.clone()), watcher::Config::default())
        .reconcile_all_on(triggers(&context.views))
        .run(route::reconcile, retry, context.clone())
        .for_each(|result| async { log(result) });
    tokio::join!(pools, models, routes);
}

fn triggers(views: &Views) -> impl futures::Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(views.clone(), |mut views| async move { views.changed().await.ok().map(|()| ((), views)) })
}

#[allow(clippy::needless_pass_by_value, reason = "kube's Controller hands them over")]
fn retry<K: Resource<DynamicType = ()>>(_: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    if error.is_conflict() {
        context.count::<K>(Outcome::Conflict);
        return Action::requeue(RETRY_CONFLICT);
    }
    context.count::<K>(Outcome::Failed);
    Action::requeue(RETRY)
}

/// Two writers that met are no news; the loser tries again.
fn log<K: Resource<DynamicType = ()>>(
    result: Result<(ObjectRef<K>, Action), controller::Error<Error, watcher::Error>>,
) {
    match result {
        Ok((object, _)) => debug!(%object, "reconciled"),
        Err(controller::Error::ReconcilerFailed(error, object)) if error.is_conflict() => {
            debug!(%object, error = %Chain(&error), "somebody else wrote in between");
        }
        Err(controller::Error::ReconcilerFailed(error, object)) => {
            warn!(%object, error = %Chain(&error), "failed to reconcile");
        }
        Err(controller::Error::ObjectNotFound(object)) => debug!(%object, "gone before it was reconciled"),
        Err(error) => warn!(error = %Chain(&error), "the controller's watch failed"),
    }
}

/// An error with its causes, as one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}
