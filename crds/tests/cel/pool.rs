//! A pool's devices, reserves, limits and what its pods may have beside what the operator gives them.

use easel_crds::GpuPool;
use serde_json::{Value, json};

use super::{Case, check, pool};

/// A pool of whole GPUs, with these fields of its spec in place of its own.
fn gpus(fields: &Value) -> Value {
    super::with(pool(), &json!({"spec": super::with(json!({"devices": "nvidia.com/gpu"}), fields)}))
}

/// A pool of a device class.
fn class() -> Value {
    let mut pool = gpus(&json!({"deviceClassName": "gpu.nvidia.com"}));
    pool["spec"].as_object_mut().expect("a spec is an object").remove("devices");
    pool
}

#[test]
fn a_replica_runs_on_one_kind_of_device() {
    let once = "name what a replica runs on once: devices (cpu, or an extended resource such as nvidia.com/gpu), or \
                deviceClassName (a device class of dynamic resource allocation)";
    let selectors = json!({"spec": {"deviceSelectors": ["device.attributes['gpu.nvidia.com'].type == 'gpu'"]}});
    let narrows = "deviceSelectors narrows a deviceClassName; choose nodes of other devices with nodeSelector";
    let cases: &[Case] = &[(json!({"spec": {"devicesPerReplica": 2}}), None), (selectors.clone(), None)];
    check::<GpuPool>(&class(), cases, None);
    check::<GpuPool>(&class(), &[(json!({"spec": {"devices": "nvidia.com/mig-1g.10gb"}}), Some(once))], None);
    check::<GpuPool>(&gpus(&json!({})), &[(selectors, Some(narrows))], None);
    let mut none = pool();
    none["spec"].as_object_mut().expect("a spec is an object").remove("devices");
    check::<GpuPool>(&none, &[(json!({}), Some(once))], None);
}

#[test]
fn the_device_class_of_a_pool_stays_what_it_is() {
    let words =
        "deviceClassName can't change while replicas exist; create another pool and move models by their `pools`";
    let cases: &[Case] = &[
        (json!({"spec": {"memory": "4Gi"}}), None),
        (json!({"spec": {"deviceClassName": "mig.nvidia.com"}}), Some(words)),
    ];
    check::<GpuPool>(&class(), cases, Some(&class()));
    check::<GpuPool>(&gpus(&json!({})), &[(json!({}), Some(words))], Some(&class()));
    check::<GpuPool>(&class(), &[(json!({}), Some(words))], Some(&gpus(&json!({}))));
}

#[test]
fn reserves_and_limits_agree() {
    let host = "hostCache is for devices with memory of their own; on cpu, models are in main memory already: leave it \
                out and raise memory";
    let spares = "warmSpares must not be above limits.replicas, of which they are a part";
    let never = "limits.usdPerHour is below the price of one replica, so the pool could never have one; raise it, or \
                 close the pool with limits.replicas: 0";
    let cases: &[Case] = &[
        (json!({"spec": {"warmSpares": 4}}), None),
        (json!({"spec": {"warmSpares": 5}}), Some(spares)),
        (json!({"spec": {"hostCache": "64Gi"}}), Some(host)),
        (json!({"spec": {"limits": {"usdPerHour": "0.04"}}}), None),
        (json!({"spec": {"limits": {"usdPerHour": "0.039"}}}), Some(never)),
        (json!({"spec": {"limits": {"usdPerHour": "0", "replicas": 0}}}), None),
        (json!({"spec": {"relativeSpeed": "0.0001"}}), None),
        (json!({"spec": {"relativeSpeed": "0.0"}}), Some("relativeSpeed must be more than 0, such as 0.5 or 2")),
    ];
    check::<GpuPool>(&pool(), cases, None);
    let none = "hostCache must be more than 0 bytes, such as 64Gi; leave it out for none";
    let cases: &[Case] =
        &[(json!({"spec": {"hostCache": "64Gi"}}), None), (json!({"spec": {"hostCache": "0"}}), Some(none))];
    check::<GpuPool>(&gpus(&json!({})), cases, None);
}

#[test]
fn pods_can_be_given_more_and_never_less_security_or_another_name() {
    let overrides = |fields: Value| json!({"spec": {"podOverrides": fields}});
    let labels = "podOverrides.labels must not begin with easel.dev/ or app.kubernetes.io/: the operator finds its pods \
                  by them";
    let annotations = "podOverrides.annotations must not begin with easel.dev/, controller.kubernetes.io/, \
                       kubernetes.io/ or a seccomp or AppArmor prefix: they are the operator's, or would loosen Pod \
                       Security";
    let env = "podOverrides.env must not begin with EASEL_ (the pod's own settings) or LD_ (what is loaded before the \
               program)";
    let unconfined = "container.apparmor.security.beta.kubernetes.io/easel-inference";
    let cases: &[Case] = &[
        (overrides(json!({"labels": {"team": "art", "kueue.x-k8s.io/queue-name": "gpu"}})), None),
        (overrides(json!({"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}})), None),
        (overrides(json!({"runtimeClassName": "nvidia", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]})), None),
        (overrides(json!({"labels": {"easel.dev/pool": "other"}})), Some(labels)),
        (overrides(json!({"labels": {"app.kubernetes.io/name": "x"}})), Some(labels)),
        (overrides(json!({"annotations": {unconfined: "unconfined"}})), Some(annotations)),
        (overrides(json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "x"}})), Some(annotations)),
        (overrides(json!({"env": [{"name": "EASEL_DEVICE", "value": "cpu"}]})), Some(env)),
        (overrides(json!({"env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]})), Some(env)),
    ];
    check::<GpuPool>(&pool(), cases, None);
}
