//! An ImageRoute as the planner and the gateway read it.
//! Refuses what it can get wrong alone; whether its backends exist is not known here.

use std::time::Duration;

use easel_planner::traffic::{self, Backend, Route, RouteClass};
use easel_planner::{ModelId, RouteId};

use super::{Invalid, dollars};
use crate::image_route::{self, Degrade, ImageRoute, ImageRouteSpec, Overflow, Priority, Quota, Tenant};

/// The route's `namespace/name` in the planner.
pub fn route_id(route: &ImageRoute) -> Result<RouteId, Invalid> {
    let namespace = route.metadata.namespace.as_deref().ok_or(Invalid::Unnamed("namespace"))?;
    let name = route.metadata.name.as_deref().ok_or(Invalid::Unnamed("name"))?;
    Ok(RouteId::new(format!("{namespace}/{name}")))
}

impl TryFrom<&ImageRoute> for Route {
    type Error = Invalid;

    fn try_from(route: &ImageRoute) -> Result<Self, Invalid> {
        let ImageRouteSpec { model: _, backends, classes, default_class, tenants } = &route.spec;
        let namespace = route.metadata.namespace.as_deref().ok_or(Invalid::Unnamed("namespace"))?;
        let backend = |backend: &image_route::Backend| {
            let image_route::Backend { model, tier, weight } = backend;
            Backend { model: ModelId::new(format!("{namespace}/{model}")), tier: *tier, weight: *weight }
        };
        if backends.iter().all(|backend| backend.weight == 0) {
            return Err(Invalid::NoBackend);
        }
        if let Some(name) = default_class.as_ref().filter(|name| !classes.iter().any(|class| class.name == **name)) {
            return Err(Invalid::DefaultClass(name.clone()));
        }
        Ok(Self {
            model: route.model().ok_or(Invalid::Unnamed("name"))?.to_owned(),
            created: route.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            backends: backends.iter().map(backend).collect(),
            classes: classes.iter().map(class).collect::<Result<_, _>>()?,
            default_class: default_class.clone(),
            tenants: tenants.iter().map(tenant).collect::<Result<_, _>>()?,
        })
    }
}

fn class(class: &image_route::RouteClass) -> Result<RouteClass, Invalid> {
    let image_route::RouteClass { name, latency_target, percentile, priority, max_usd_per_image, overflow, degrade } =
        class;
    let ceiling = max_usd_per_image.as_deref().map(|text| dollars("spec.classes.maxUsdPerImage", text));
    let Degrade { min_steps, min_tier } = degrade.clone().unwrap_or_default();
    Ok(RouteClass {
        name: name.clone(),
        latency: positive("spec.classes.latencyTarget", name, *latency_target)?,
        percentile: *percentile,
        priority: read(*priority),
        max_per_image: ceiling.transpose()?,
        overflow: match overflow {
            Overflow::Queue => traffic::Overflow::Queue,
            Overflow::Shed => traffic::Overflow::Shed,
            Overflow::Degrade => traffic::Overflow::Degrade { min_steps, min_tier },
        },
    })
}

fn tenant(tenant: &Tenant) -> Result<traffic::Tenant, Invalid> {
    let Tenant { name, weight, max_priority, quotas } = tenant;
    let quota = |quota: &Quota| {
        let Quota { window, images, megapixel_steps, usd } = quota;
        Ok(traffic::Quota {
            window: positive("spec.tenants.quotas.window", name, *window)?,
            images: *images,
            megapixel_steps: *megapixel_steps,
            cost: usd.as_deref().map(|text| dollars("spec.tenants.quotas.usd", text)).transpose()?,
        })
    };
    Ok(traffic::Tenant {
        name: name.clone(),
        weight: *weight,
        max_priority: read(*max_priority),
        quotas: quotas.iter().map(quota).collect::<Result<_, Invalid>>()?,
    })
}

fn read(priority: Priority) -> traffic::Priority {
    match priority {
        Priority::High => traffic::Priority::High,
        Priority::Normal => traffic::Priority::Normal,
        Priority::Low => traffic::Priority::Low,
    }
}

/// The conversion drops the sign.
fn positive(field: &'static str, name: &str, time: kube::core::Duration) -> Result<Duration, Invalid> {
    let read = Duration::from(time);
    if time.is_negative() || read.is_zero() {
        return Err(Invalid::Time { field, name: name.to_owned() });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use easel_planner::units::MicroUsd;
    use serde_json::{Value, json};

    use super::*;

    fn route(spec: &Value) -> ImageRoute {
        let mut full = json!({"backends": [{"model": "sdxl"}]});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "easel.dev/v1alpha1", "kind": "ImageRoute",
            "metadata": {"name": "paint", "namespace": "art", "creationTimestamp": "1970-01-01T00:00:07Z"}, "spec": full}))
        .unwrap()
    }

    #[test]
    fn a_route_becomes_the_planners_route() {
        let written = route(&json!({
            "backends": [{"model": "sdxl", "tier": 2}, {"model": "turbo", "weight": 3}],
            "classes": [{"name": "live", "latencyTarget": "5s", "priority": "High", "maxUsdPerImage": "0.01",
                "overflow": "Degrade", "degrade": {"minSteps": 8}}],
            "defaultClass": "live",
            "tenants": [{"name": "web", "weight": 2, "maxPriority": "Normal",
                "quotas": [{"window": "1h", "images": 100, "usd": "2.50"}]}]}));
        let read = Route::try_from(&written).unwrap();
        assert_eq!(route_id(&written), Ok(RouteId::new("art/paint")));
        assert_eq!((&*read.model, read.created), ("paint", 7));
        let backend = |name: &str, tier, weight| Backend { model: ModelId::new(name), tier, weight };
        assert_eq!(read.backends, [backend("art/sdxl", 2, 1), backend("art/turbo", 1, 3)]);
        let class = &read.classes[0];
        assert_eq!(
            (class.latency, class.percentile, class.priority),
            (Duration::from_secs(5), 95, traffic::Priority::High)
        );
        assert_eq!(class.max_per_image, Some(MicroUsd::new(10_000)));
        assert_eq!(class.overflow, traffic::Overflow::Degrade { min_steps: Some(8), min_tier: None });
        let tenant = &read.tenants[0];
        assert_eq!((tenant.weight, tenant.max_priority), (2, traffic::Priority::Normal));
        let quota = traffic::Quota {
            window: Duration::from_hours(1),
            images: Some(100),
            megapixel_steps: None,
            cost: Some(MicroUsd::new(2_500_000)),
        };
        assert_eq!(tenant.quotas, [quota]);
    }

    #[test]
    fn a_route_that_says_its_name_is_called_by_it() {
        assert_eq!(Route::try_from(&route(&json!({"model": "gpt-image-1"}))).unwrap().model, "gpt-image-1");
    }

    #[test]
    fn what_a_route_can_get_wrong_alone_is_refused_with_the_field() {
        for (spec, message) in [
            (json!({"defaultClass": "live"}), "spec.defaultClass 'live' is none of spec.classes"),
            (json!({"backends": [{"model": "sdxl", "weight": 0}]}), "spec.backends has none with a weight above 0"),
            (
                json!({"classes": [{"name": "live", "latencyTarget": "-5s"}]}),
                "spec.classes.latencyTarget of 'live' must be more",
            ),
            (
                json!({"classes": [{"name": "live", "latencyTarget": "5s", "maxUsdPerImage": "x"}]}),
                "spec.classes.maxUsdPerImage: 'x' is not a price",
            ),
        ] {
            let error = Route::try_from(&route(&spec)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
