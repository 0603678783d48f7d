//! A GpuPool: its shared Deployment, its status, and the finalizer that holds it until its last replica is gone.
//! How many replicas that are is the plan's.

use std::sync::Arc;

use easel_crds::GpuPool;
use easel_crds::planner::{Invalid, pool_name};
use easel_planner::PoolName;
use easel_planner::snapshot::Pool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tracing::{info, warn};

use super::apply::apply;
use super::build::{Wanted, build};
use super::shape::Shape;
use super::status::model::Found;
use super::{ApplyError, Chain, Context, Error, Outcome, status};
use crate::index::{DELETION_COST, ObservedPod};
use crate::names::{FINALIZER, Workload};
use crate::planning::View;

struct Fetched {
    name: PoolName,
    view: Arc<View>,
    workload: Workload,
    deployment: Option<Arc<Deployment>>,
}

#[tracing::instrument(skip_all, fields(pool = %pool.name_any()))]
pub(super) async fn reconcile(pool: Arc<GpuPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(fetched) = fetch(&ctx, &pool) else { return Ok(Action::await_change()) };
    hold(&ctx, &pool).await?;
    let (applied, found) = match validate(&pool, &fetched) {
        Ok(wanted) => {
            let applied = carry_out(&ctx, &fetched, &wanted).await;
            let failure =
                applied.as_ref().err().filter(|error| !error.is_conflict()).map(|error| Chain(error).to_string());
            (applied, Found { invalid: None, failure })
        }
        Err(invalid) => (Ok(()), Found { invalid: Some(invalid.to_string()), failure: None }),
    };
    show(&ctx, &pool, &fetched, &found).await?; // a refusal or a failure is shown, never swallowed
    applied?;
    release(&ctx, &pool, &fetched).await?;
    ctx.count::<GpuPool>(Outcome::Done);
    Ok(Action::await_change())
}

/// `None` until the plan has seen the pool as it is now; the next plan wakes us again.
fn fetch(ctx: &Context, pool: &GpuPool) -> Option<Fetched> {
    let name = pool_name(pool).ok()?;
    let view = ctx.views.borrow().clone()?;
    let seen = view.observed.pools.get(&name)?;
    if seen.metadata.generation != pool.metadata.generation || seen.metadata.uid != pool.metadata.uid {
        return None;
    }
    let workload = Workload::Shared { pool: pool.name_any(), namespace: ctx.settings.namespace.clone() };
    let deployment = view.observed.deployment(&workload).cloned();
    Some(Fetched { name, view, workload, deployment })
}

fn validate(pool: &GpuPool, fetched: &Fetched) -> Result<Wanted, Invalid> {
    Pool::try_from(pool)?;
    let owner = pool.controller_owner_ref(&()).ok_or(Invalid::Unnamed("uid"))?;
    let replicas = fetched.view.shared.get(&fetched.name).copied().unwrap_or(0);
    Ok(Wanted { workload: fetched.workload.clone(), owner, shape: Shape::try_from(pool)?, replicas, volume: None })
}

async fn carry_out(ctx: &Context, fetched: &Fetched, wanted: &Wanted) -> Result<(), ApplyError> {
    let exist = fetched.view.observed.pods_of(&fetched.workload).filter(|(_, pod)| !pod.leaving).count();
    if exist > wanted.replicas as usize {
        rank_pods(ctx, fetched).await;
    }
    let children = build(wanted, &ctx.settings);
    apply(ctx, wanted, children, fetched.deployment.as_deref()).await
}

/// Of a Deployment that shrinks, pods that hold nothing shall go first. A cost that can't be written is not worth a failure:
/// the plan seats again whatever went.
async fn rank_pods(ctx: &Context, fetched: &Fetched) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), fetched.workload.namespace());
    let wrong = fetched.view.observed.pods_of(&fetched.workload).filter_map(|(id, pod)| {
        let cost = deletion_cost(pod, fetched.view.is_wanted(id))?;
        Some((pod, cost))
    });
    for (pod, cost) in wrong {
        let patch = json!({"metadata": {"uid": pod.uid, "annotations": {DELETION_COST: cost}}});
        if let Err(error) = api.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            warn!(pod = pod.name, %error, "failed to rank the pod");
        }
    }
}

/// The cost to write, if it is not there.
fn deletion_cost(pod: &ObservedPod, wanted: bool) -> Option<&'static str> {
    let cost = if wanted { "100" } else { "-100" };
    (!pod.leaving && pod.deletion_cost.as_deref() != Some(cost)).then_some(cost)
}

async fn show(ctx: &Context, pool: &GpuPool, fetched: &Fetched, found: &Found) -> Result<(), Error> {
    let there = pool.status.as_ref();
    let conditions = there.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let before = ctx.written.before(pool.metadata.uid.as_deref(), conditions);
    let wanted = status::pool::status(&fetched.name, pool, &fetched.view, found, &before, Timestamp::now());
    let change = status::Change { there, wanted: &wanted, before: &before, conditions: &wanted.conditions };
    status::write(ctx, pool, Api::all(ctx.client.clone()), change).await.map(drop)
}

/// Before the first replica exists, so that none can be left without its pool.
async fn hold(ctx: &Context, pool: &GpuPool) -> Result<(), Error> {
    if pool.metadata.deletion_timestamp.is_some() || pool.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = pool.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(&Api::all(ctx.client.clone()), pool, &finalizers).await
}

/// When deletion was asked for and no replica is left.
async fn release(ctx: &Context, pool: &GpuPool, fetched: &Fetched) -> Result<(), Error> {
    let held = pool.finalizers().iter().any(|name| name == FINALIZER);
    if pool.metadata.deletion_timestamp.is_none() || !held || !is_drained(fetched) {
        return Ok(());
    }
    info!("pool drained");
    strip(&Api::all(ctx.client.clone()), pool).await
}

fn is_drained(fetched: &Fetched) -> bool {
    let none_shall_come = fetched.view.shared.get(&fetched.name).copied().unwrap_or(0) == 0;
    none_shall_come && status::pool::pods(&fetched.name, &fetched.view).next().is_none()
}

/// Takes the finalizer off.
pub async fn strip(api: &Api<GpuPool>, pool: &GpuPool) -> Result<(), Error> {
    let finalizers: Vec<String> = pool.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    set_finalizers(api, pool, &finalizers).await
}

/// At the version that was read: a list that somebody else changed is not overwritten.
async fn set_finalizers(api: &Api<GpuPool>, pool: &GpuPool, finalizers: &[String]) -> Result<(), Error> {
    let version = pool.metadata.resource_version.as_deref();
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
    match api.patch_metadata(&pool.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::Finalizer(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{changed_pod, shared_pod};

    #[test]
    fn pods_that_hold_nothing_are_the_first_to_go() {
        let pod = |fields| {
            ObservedPod::parse(&changed_pod(shared_pod("a", "cpu", "10.0.0.1"), &fields), "easel-system").unwrap().1
        };
        assert_eq!(deletion_cost(&pod(json!({})), false), Some("-100"));
        let ranked = json!({"metadata": {"annotations": {DELETION_COST: "-100"}}});
        assert_eq!(deletion_cost(&pod(ranked.clone()), false), None);
        assert_eq!(deletion_cost(&pod(ranked), true), Some("100"));
    }
}
