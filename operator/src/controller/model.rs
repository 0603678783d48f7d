//! An ImageModel: its own Deployment where it is Dedicated, and its status.
//! Shared models live in a pool's pods, which are the pool's to make.

use std::sync::Arc;
use std::time::Instant;

use easel_crds::ImageModel;
use easel_crds::planner::{Invalid, model_id};
use easel_planner::ModelId;
use easel_planner::snapshot::{Model, Placement};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::apply::{apply, remove};
use super::build::{Wanted, build};
use super::shape::Shape;
use super::status::model::{Found, Happening, happenings};
use super::{ApplyError, Chain, Context, Error, Outcome, status};
use crate::names::{Workload, split};
use crate::planning::View;
use crate::wire::{self, Place, Volume, WireError};

/// What is known of the model when the reconcile begins.
struct Fetched {
    id: ModelId,
    view: Arc<View>,
    workload: Workload,
    deployment: Option<Arc<Deployment>>,
}

/// What shall become of the model's own Deployment.
enum Intent {
    /// Shared: it has none.
    None,
    Apply(Box<Wanted>),
    Remove,
}

#[tracing::instrument(skip_all, fields(model = %format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any())))]
pub(super) async fn reconcile(model: Arc<ImageModel>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(fetched) = fetch(&ctx, &model) else { return Ok(Action::await_change()) };
    let (applied, found) = match validate(&model, &fetched) {
        Ok(intent) => {
            let applied = carry_out(&ctx, &fetched, intent).await;
            let failure =
                applied.as_ref().err().filter(|error| !error.is_conflict()).map(|error| Chain(error).to_string());
            (applied, Found { invalid: None, failure })
        }
        Err(invalid) => (Ok(()), Found { invalid: Some(invalid.to_string()), failure: None }),
    };
    show(&ctx, &model, &fetched, &found).await?; // a refusal or a failure is shown, never swallowed
    applied?;
    ctx.count::<ImageModel>(Outcome::Done);
    Ok(Action::await_change())
}

/// `None` until the plan has seen the model at this generation; the next plan wakes us again.
fn fetch(ctx: &Context, model: &ImageModel) -> Option<Fetched> {
    let id = model_id(model).ok()?;
    let view = ctx.views.borrow().clone()?;
    let seen = view.observed.models.get(&id)?;
    if seen.metadata.generation != model.metadata.generation || seen.metadata.uid != model.metadata.uid {
        return None;
    }
    let (namespace, name) = split(&id);
    let workload = Workload::Dedicated { model: name.to_owned(), namespace: namespace.to_owned() };
    let deployment = view.observed.deployment(&workload).cloned();
    Some(Fetched { id, view, workload, deployment })
}

fn validate(model: &ImageModel, fetched: &Fetched) -> Result<Intent, WireError> {
    let planned = Model::try_from(model)?;
    wire::check(model)?;
    let Place { source: _, volume } = wire::place(model)?;
    match planned.placement {
        Placement::Shared => Ok(Intent::None),
        Placement::Dedicated => intent(model, fetched, volume),
    }
}

fn intent(model: &ImageModel, fetched: &Fetched, volume: Option<Volume>) -> Result<Intent, WireError> {
    let Fetched { id, view, workload, deployment: _ } = fetched;
    let Some((plan, pool)) =
        view.plan.dedicated.get(id).and_then(|plan| Some((plan, view.observed.pools.get(&plan.pool)?)))
    else {
        return Ok(Intent::Remove);
    };
    let owner = model.controller_owner_ref(&()).ok_or(Invalid::Unnamed("uid"))?;
    let (shape, workload) = (Shape::try_from(&**pool)?, workload.clone());
    Ok(Intent::Apply(Box::new(Wanted { workload, owner, shape, replicas: plan.replicas, volume })))
}

async fn carry_out(ctx: &Context, fetched: &Fetched, intent: Intent) -> Result<(), ApplyError> {
    match intent {
        Intent::None => Ok(()),
        Intent::Remove => remove(ctx, &fetched.workload).await,
        Intent::Apply(wanted) => {
            let children = build(&wanted, &ctx.settings);
            apply(ctx, &wanted, children, fetched.deployment.as_deref()).await
        }
    }
}

async fn show(ctx: &Context, model: &ImageModel, fetched: &Fetched, found: &Found) -> Result<(), Error> {
    let there = model.status.as_ref();
    let conditions = there.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let before = ctx.written.before(model.metadata.uid.as_deref(), conditions);
    let shown = status::model::Shown { id: &fetched.id, model, view: &fetched.view, found };
    let url = ctx.gateway_url.as_deref();
    let wanted = status::model::status(&shown, url, &ctx.settings.namespace, &before, Timestamp::now());
    let api = Api::namespaced(ctx.client.clone(), fetched.workload.namespace());
    let change = status::Change { there, wanted: &wanted, before: &before, conditions: &wanted.conditions };
    let turned = status::write(ctx, model, api, change).await?;
    for happening in happenings(&shown, &turned, there, &wanted) {
        tell(ctx, model, &happening).await;
    }
    Ok(())
}

/// Once: the status that is read may be older than the one that was written, and it would seem to happen again.
async fn tell(ctx: &Context, model: &ImageModel, Happening { reason, is_warning, note, of }: &Happening) {
    let key = (*reason, model.namespace().unwrap_or_default(), model.name_any());
    let (of, now) = (format!("{} {of}", model.uid().unwrap_or_default()), Instant::now());
    if !ctx.memo.is_written(&key, &of, now) {
        ctx.memo.remember(key, of, now);
        status::publish(ctx, model, *is_warning, reason, note).await;
    }
}
