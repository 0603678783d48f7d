//! The devices of a class that a pod claims: a ResourceClaimTemplate, and where the pod names it.
//! Knows dynamic resource allocation (`resource.k8s.io/v1`); which class is the pool's affair.

use k8s_openapi::api::core::v1::{PodResourceClaim, ResourceClaim};
use k8s_openapi::api::resource::v1::{
    CELDeviceSelector, DeviceClaim, DeviceRequest, DeviceSelector, ExactDeviceRequest, ResourceClaimSpec,
    ResourceClaimTemplate, ResourceClaimTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::shape::Devices;
use super::template::short_digest;
use super::{Wanted, metadata};

/// What the pod calls its claim, and the claim its request.
const DEVICES: &str = "devices";

/// `None` for a pool whose devices are no class.
pub(super) fn template(wanted: &Wanted) -> Option<ResourceClaimTemplate> {
    let spec = spec(&wanted.shape.devices)?;
    let name = Some(name(wanted, &spec));
    let spec = ResourceClaimTemplateSpec { metadata: None, spec: Some(spec) };
    Some(ResourceClaimTemplate { metadata: ObjectMeta { name, ..metadata(wanted) }, spec: Some(spec) })
}

pub(super) fn of_pod(wanted: &Wanted) -> Option<Vec<PodResourceClaim>> {
    let spec = spec(&wanted.shape.devices)?;
    let resource_claim_template_name = Some(name(wanted, &spec));
    Some(vec![PodResourceClaim { name: DEVICES.into(), resource_claim_template_name, resource_claim_name: None }])
}

pub(super) fn of_container(wanted: &Wanted) -> Option<Vec<ResourceClaim>> {
    spec(&wanted.shape.devices).map(|_| vec![ResourceClaim { name: DEVICES.into(), request: None }])
}

fn spec(devices: &Devices) -> Option<ResourceClaimSpec> {
    let Devices::Class { name, count, selectors } = devices else { return None };
    let selector =
        |expression: &String| DeviceSelector { cel: Some(CELDeviceSelector { expression: expression.clone() }) };
    let exactly = ExactDeviceRequest {
        device_class_name: name.clone(),
        allocation_mode: Some("ExactCount".into()),
        count: Some(i64::from(*count)),
        selectors: (!selectors.is_empty()).then(|| selectors.iter().map(selector).collect()),
        ..ExactDeviceRequest::default()
    };
    let request = DeviceRequest { name: DEVICES.into(), exactly: Some(exactly), first_available: None };
    Some(ResourceClaimSpec { devices: Some(DeviceClaim { requests: Some(vec![request]), ..DeviceClaim::default() }) })
}

/// A template's spec can't change, so another spec is another template: pods of the former one keep theirs until they go.
fn name(wanted: &Wanted, spec: &ResourceClaimSpec) -> String {
    let json = serde_json::to_vec(spec).expect("a claim is JSON");
    format!("{}-{}", wanted.workload.deployment(), short_digest(&json))
}
