//! An ImageRoute: its status. Nothing is made of it in Kubernetes; every gateway reads routes by itself.
//! Which route has a name is the planner's to say.

use std::sync::Arc;

use easel_crds::ImageRoute;
use easel_crds::planner::route_id;
use easel_planner::RouteId;
use easel_planner::traffic::Route;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;

use super::{Context, Error, Outcome, status};
use crate::planning::View;

struct Fetched {
    id: RouteId,
    view: Arc<View>,
}

#[tracing::instrument(skip_all, fields(route = %format!("{}/{}", route.namespace().unwrap_or_default(), route.name_any())))]
pub(super) async fn reconcile(route: Arc<ImageRoute>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(fetched) = fetch(&ctx, &route) else { return Ok(Action::await_change()) };
    let invalid = Route::try_from(&*route).err().map(|invalid| invalid.to_string());
    show(&ctx, &route, &fetched, invalid.as_deref()).await?; // a refusal is shown, never swallowed
    ctx.count::<ImageRoute>(Outcome::Done);
    Ok(Action::await_change())
}

/// `None` until the plan has seen the route as it is now; the next plan wakes us again.
fn fetch(ctx: &Context, route: &ImageRoute) -> Option<Fetched> {
    let id = route_id(route).ok()?;
    let view = ctx.views.borrow().clone()?;
    let seen = view.observed.routes.get(&id)?;
    if seen.metadata.generation != route.metadata.generation || seen.metadata.uid != route.metadata.uid {
        return None;
    }
    Some(Fetched { id, view })
}

async fn show(ctx: &Context, route: &ImageRoute, fetched: &Fetched, invalid: Option<&str>) -> Result<(), Error> {
    let there = route.status.as_ref();
    let conditions = there.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let before = ctx.written.before(route.metadata.uid.as_deref(), conditions);
    let shown = status::route::Shown { id: &fetched.id, route, view: &fetched.view, invalid };
    let wanted = status::route::status(&shown, ctx.gateway_url.as_deref(), &before, Timestamp::now());
    let api = Api::namespaced(ctx.client.clone(), &route.namespace().unwrap_or_default());
    let change = status::Change { there, wanted: &wanted, before: &before, conditions: &wanted.conditions };
    status::write(ctx, route, api, change).await.map(drop)
}
