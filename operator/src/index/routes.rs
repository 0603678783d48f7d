//! Turns what is observed into what the gateway routes by. Pure.
//! Knows nothing of plans: a pod that answers for a model is worth asking, whoever wanted it there.

use std::collections::{BTreeMap, BTreeSet};

use easel_api::images::Task;
use easel_crds::ImageModel;
use easel_planner::route::Endpoint;
use easel_planner::snapshot::{Model, Pool, Slo};
use easel_planner::traffic::{self, RouteClass};
use easel_planner::units::MicroUsdPerHour;
use easel_planner::{ModelId, ReplicaId, RouteId};

use super::snapshot::{believable, reported, routes};
use super::{Observed, ObservedPod};
use crate::names::split;
use crate::routing_table::{Pod, RoutingTable, ServedModel, ServedRoute, Terms};
use crate::wire;

/// The engine's port in every inference pod.
pub const ENGINE_PORT: u16 = 8443;

pub fn routing_table(observed: &Observed) -> RoutingTable {
    let tasks = tasks(observed);
    let served = |id: &ModelId, model| served(id, model, tasks.get(id).cloned().unwrap_or_default());
    let models = observed.models.iter().filter_map(|(id, model)| Some((id.clone(), served(id, model)?)));
    let pods = observed.pods.iter().filter_map(|(id, pod)| Some((id.clone(), answering(observed, id, pod)?)));
    let models: BTreeMap<_, _> = models.collect();
    let routes = served_routes(observed, &models);
    RoutingTable { complete: observed.complete, models, routes, pods: pods.collect() }
}

/// Routes that have their name, each with the backends that exist.
fn served_routes(observed: &Observed, models: &BTreeMap<ModelId, ServedModel>) -> BTreeMap<RouteId, ServedRoute> {
    let routes = routes(observed);
    let accepted = traffic::accept(&routes, &models.keys().cloned().collect());
    let served = |(id, route): (RouteId, traffic::Route)| {
        let verdict = accepted.get(&id).filter(|verdict| verdict.name.is_ok())?;
        let backends =
            route.in_order().into_iter().filter(|backend| verdict.accepted(&backend.model)).cloned().collect();
        let namespace = id.as_str().split_once('/').map_or("", |(namespace, _)| namespace).to_owned();
        let traffic::Route { model, created, backends: _, classes, default_class, tenants } = route;
        let created = u64::try_from(created).unwrap_or(0);
        let terms = Terms { classes, default_class, tenants };
        Some((id, ServedRoute { namespace, name: model, created, backends, terms }))
    };
    routes.into_iter().filter_map(served).collect()
}

/// What a model promises to those who ask for it by its own name.
fn terms(model: &ImageModel) -> Terms {
    let slos = Model::try_from(model).map(|model| model.slos).unwrap_or_default();
    let class = |Slo { class, latency, percentile }: Slo| RouteClass {
        name: class,
        latency,
        percentile,
        priority: traffic::Priority::default(),
        max_per_image: None,
        overflow: traffic::Overflow::Queue,
    };
    Terms { classes: slos.into_iter().map(class).collect(), ..Terms::default() }
}

/// What pods say that the checkpoints which are in effect can do.
fn tasks(observed: &Observed) -> BTreeMap<ModelId, Vec<Task>> {
    let mut tasks = BTreeMap::new();
    for (pod, report) in observed.pods.iter().filter_map(|(id, pod)| Some((pod, observed.reports.get(id)?))) {
        for said in believable(pod, report).filter(|said| !said.tasks.is_empty()) {
            let id = ModelId::new(said.id.as_str());
            let wanted = observed.models.get(&id).and_then(|model| model.in_effect()).map(|(_, digest)| digest);
            if wanted == Some(said.digest.as_str()) {
                tasks.insert(id, said.tasks.clone());
            }
        }
    }
    tasks
}

/// `None` for a model that is wrong by itself: it is served nowhere.
fn served(id: &ModelId, model: &ImageModel, tasks: Vec<Task>) -> Option<ServedModel> {
    let (namespace, name) = split(id);
    let created = model.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Some(ServedModel {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        created: u64::try_from(created).unwrap_or(0),
        digest: model.in_effect().map(|(_, digest)| digest).unwrap_or_default().to_owned(),
        defaults: wire::defaults(&model.spec.defaults).ok()?,
        limits: wire::limits(&model.spec.limits),
        adapters: model.spec.adapters.iter().map(|adapter| adapter.name.clone()).collect(),
        tasks,
        parked: model.spec.replicas.min == 0 && model.spec.replicas.max.is_none(),
        terms: terms(model),
    })
}

fn answering(observed: &Observed, id: &ReplicaId, pod: &ObservedPod) -> Option<Pod> {
    let report = observed.reports.get(id)?;
    let residents = reported(pod, report);
    let ready: BTreeMap<_, _> = residents
        .iter()
        .filter(|(_, resident)| resident.ready)
        .map(|(id, resident)| (id.clone(), resident.step))
        .collect();
    let price = observed.pools.get(&pod.pool).and_then(|pool| Pool::try_from(&**pool).ok()).map(|pool| pool.price);
    let endpoint = Endpoint {
        id: id.clone(),
        // A pod whose pool is gone costs an unknown price: the last to be picked among equals.
        price: price.unwrap_or(MicroUsdPerHour::new(u64::MAX)),
        coming: coming(pod, report).filter(|id| !ready.contains_key(id)).collect::<BTreeSet<_>>(),
        ready,
        queued: report.waiting.saturating_add(report.running),
        queue_limit: report.queue_limit,
        draining: report.draining || pod.leaving,
    };
    address(pod, endpoint)
}

/// Models on their way; a refused one is not.
fn coming<'a>(pod: &'a ObservedPod, report: &'a easel_api::engine::Report) -> impl Iterator<Item = ModelId> + 'a {
    use easel_api::engine::ModelState::{Fetching, Loading, Ready, Refused, Verifying, WarmingUp};
    let on_its_way = |state: &easel_api::engine::ModelState| match state {
        Fetching { .. } | Verifying { .. } | Loading | WarmingUp => true,
        Ready | Refused { .. } => false,
    };
    believable(pod, report).filter(move |model| on_its_way(&model.state)).map(|model| ModelId::new(model.id.as_str()))
}

/// Where a pod is called, with what is known of it. `None` before it has an address.
pub(super) fn address(pod: &ObservedPod, endpoint: Endpoint) -> Option<Pod> {
    Some(Pod {
        endpoint,
        address: pod.address?,
        port: ENGINE_PORT,
        deployment: pod.workload.deployment(),
        namespace: pod.workload.namespace().to_owned(),
        pool: pod.pool.as_str().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use easel_api::engine::{ModelState, RefusalReason, Tier};
    use serde_json::json;

    use super::*;
    use crate::testing::{model, observed, pool, report, route, shared_pod, with};

    #[test]
    fn a_model_can_do_what_a_pod_says_of_the_checkpoint_that_is_in_effect() {
        let tasks = |digest: &str| {
            let mut says = report(1, 1, &[("art/m", ModelState::Ready)]);
            says.models[0].tasks = vec![Task::Inpaint];
            says.models[0].digest = digest.to_owned();
            let pods = [(shared_pod("a", "cpu", "10.0.0.1"), Some(says))];
            let table = routing_table(&observed(&[pool("cpu")], &[model("art", "m")], &pods));
            table.models.values().next().unwrap().tasks.clone()
        };
        let in_effect = model("art", "m").in_effect().unwrap().1.to_owned();
        assert_eq!(tasks(&in_effect), [Task::Inpaint]);
        assert!(tasks("sha256:other").is_empty());
    }

    #[test]
    fn a_route_is_served_with_the_backends_that_exist_in_their_order() {
        let mut world = observed(&[pool("cpu")], &[model("art", "low"), model("art", "best")], &[]);
        let spec = json!({"model": "paint-1", "backends": [{"model": "low"}, {"model": "gone"},
            {"model": "best", "tier": 2}], "classes": [{"name": "live", "latencyTarget": "5s"}]});
        for route in [route("art", "paint", &spec), route("art", "younger", &spec)] {
            let id = easel_crds::planner::route_id(&route).unwrap();
            world.routes.insert(id, std::sync::Arc::new(route));
        }
        let table = routing_table(&world);
        assert_eq!(table.routes.keys().map(RouteId::as_str).collect::<Vec<_>>(), ["art/paint"]);
        let served = table.routes.values().next().unwrap();
        let backends: Vec<&str> = served.backends.iter().map(|backend| backend.model.as_str()).collect();
        assert_eq!(
            (&*served.name, backends, &*served.terms.classes[0].name),
            ("paint-1", vec!["art/best", "art/low"], "live")
        );
    }

    #[test]
    fn a_pod_that_reports_is_an_endpoint_with_what_it_says() {
        let refused = ModelState::Refused { reason: RefusalReason::NotFound, message: "m".into() };
        let says = report(1, 1, &[("art/m", ModelState::Ready), ("art/n", ModelState::Loading), ("art/o", refused)]);
        let world = observed(
            &[pool("cpu")],
            &[model("art", "m"), with(model("art", "n"), json!({"replicas": {"min": 0}}))],
            &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says)), (shared_pod("b", "cpu", "10.0.0.2"), None)],
        );
        let table = routing_table(&world);
        assert!(table.complete);
        assert_eq!(table.pods.keys().map(ReplicaId::as_str).collect::<Vec<_>>(), ["easel-system/a"]);
        let pod = table.pods.values().next().unwrap();
        let (ready, coming) = (&pod.endpoint.ready, &pod.endpoint.coming);
        assert_eq!(ready.keys().map(ModelId::as_str).collect::<Vec<_>>(), ["art/m"]);
        assert_eq!(coming.iter().map(ModelId::as_str).collect::<Vec<_>>(), ["art/n"]);
        assert_eq!((pod.endpoint.queued, pod.endpoint.price), (3, MicroUsdPerHour::new(40_000)));
        assert_eq!((pod.deployment.as_str(), pod.namespace.as_str()), ("easel-pool-cpu", "easel-system"));
        assert_eq!(table.models.values().map(|model| model.parked).collect::<Vec<_>>(), [false, true]);
    }

    /// What the way to the device costs, an endpoint has no place for yet.
    #[test]
    fn a_model_that_is_kept_below_the_device_answers_too() {
        let mut says = report(1, 1, &[("art/m", ModelState::Ready)]);
        (says.models[0].tier, says.models[0].moving_to) = (Some(Tier::Disk), Some(Tier::Device));
        let world = observed(&[pool("cpu")], &[], &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says))]);
        let endpoint = &routing_table(&world).pods.values().next().unwrap().endpoint.clone();
        assert!(endpoint.ready.contains_key(&ModelId::new("art/m")) && endpoint.coming.is_empty());
    }

    #[test]
    fn a_model_that_is_swapped_is_ready_and_not_coming() {
        let says = report(1, 1, &[("art/m", ModelState::Ready), ("art/m", ModelState::Loading)]);
        let world = observed(&[pool("cpu")], &[], &[(shared_pod("a", "cpu", "10.0.0.1"), Some(says))]);
        let endpoint = &routing_table(&world).pods.values().next().unwrap().endpoint.clone();
        assert!(endpoint.ready.contains_key(&ModelId::new("art/m")) && endpoint.coming.is_empty());
    }
}
