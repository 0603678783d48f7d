//! A route's backends, classes and tenants.

use easel_crds::ImageRoute;
use serde_json::{Value, json};

use super::{Case, check};

fn route() -> Value {
    json!({"apiVersion": "easel.dev/v1alpha1", "kind": "ImageRoute", "metadata": {"name": "paint", "namespace": "art"},
        "spec": {"backends": [{"model": "sdxl"}]}})
}

fn spec(fields: &Value) -> Value {
    json!({"spec": fields})
}

fn class(fields: &Value) -> Value {
    json!({"spec": {"classes": [super::with(json!({"name": "live", "latencyTarget": "5s"}), fields)]}})
}

#[test]
fn every_rule_of_a_route_refuses_with_its_sentence() {
    let name = |length: usize| json!({"metadata": {"name": "n".repeat(length)}});
    let live = json!([{"name": "live", "latencyTarget": "5s"}]);
    let cases: &[Case] = &[
        (name(63), None),
        (
            name(64),
            Some("the name of a route has at most 63 characters; clients may be given a longer one by spec.model"),
        ),
        (spec(&json!({"backends": [{"model": "a", "weight": 0}, {"model": "b"}]})), None),
        (
            spec(&json!({"backends": [{"model": "a", "weight": 0}]})),
            Some("at least one backend must have a weight above 0, or nobody answers"),
        ),
        (spec(&json!({"classes": live, "defaultClass": "live"})), None),
        (
            spec(&json!({"classes": live, "defaultClass": "batch"})),
            Some("defaultClass must be the name of one of classes"),
        ),
        (spec(&json!({"defaultClass": "batch"})), Some("defaultClass must be the name of one of classes")),
    ];
    check::<ImageRoute>(&route(), cases, None);
}

#[test]
fn every_rule_of_a_class_refuses_with_its_sentence() {
    let alone = "degrade says how far overflow: Degrade may go; leave it out, or set overflow: Degrade";
    let nothing = "overflow: Degrade needs something to degrade to: degrade.minSteps in the class, or backends of more \
                   than one tier";
    let cases: &[Case] = &[
        (class(&json!({"overflow": "Shed", "priority": "Low", "maxUsdPerImage": "0.01"})), None),
        (class(&json!({"latencyTarget": "0s"})), Some("latencyTarget must be more than 0, such as 800ms or 5s")),
        (class(&json!({"maxUsdPerImage": "0"})), Some("maxUsdPerImage must be more than 0, such as 0.002")),
        (class(&json!({"overflow": "Degrade", "degrade": {"minSteps": 8}})), None),
        (class(&json!({"overflow": "Degrade"})), Some(nothing)),
        (class(&json!({"overflow": "Degrade", "degrade": {"minTier": 1}})), Some(nothing)),
        (class(&json!({"degrade": {"minSteps": 8}})), Some(alone)),
        (class(&json!({"overflow": "Degrade", "degrade": {"minSteps": 8, "minTier": 1}})), None),
    ];
    check::<ImageRoute>(&route(), cases, None);
    let empty = class(&json!({"overflow": "Degrade", "degrade": {}}));
    let two = spec(&json!({"backends": [{"model": "a", "tier": 3}, {"model": "b", "tier": 2}]}));
    let base = super::with(route(), &two);
    let above =
        "degrade.minTier is above the tier of every backend, so nobody could answer; write the lowest tier that may";
    let cases: &[Case] = &[
        (class(&json!({"overflow": "Degrade"})), None),
        (empty, Some("degrade needs minSteps, minTier or both")),
        (class(&json!({"overflow": "Degrade", "degrade": {"minTier": 3}})), None),
        (class(&json!({"overflow": "Degrade", "degrade": {"minTier": 4}})), Some(above)),
    ];
    check::<ImageRoute>(&base, cases, None);
}

#[test]
fn every_rule_of_a_quota_refuses_with_its_sentence() {
    let quota = |quota: Value| json!({"spec": {"tenants": [{"name": "web", "quotas": [quota]}]}});
    let window = "window is at least 1m and at most 744h (31 days), such as 1h";
    let cases: &[Case] = &[
        (quota(json!({"window": "1h", "images": 100})), None),
        (quota(json!({"window": "744h", "usd": "2.50", "megapixelSteps": 1000})), None),
        (quota(json!({"window": "1h"})), Some("a quota needs at least one of images, megapixelSteps and usd")),
        (quota(json!({"window": "59s", "images": 1})), Some(window)),
        (quota(json!({"window": "745h", "images": 1})), Some(window)),
    ];
    check::<ImageRoute>(&route(), cases, None);
}
