//! The pod template: one container that draws, as little allowed as it needs.
//! Its digest is a label, so that a pod tells which template it was made from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, SleepAction,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::super::shape::Devices;
use super::claim;
use super::overrides::{annotations, env, labels};
use super::volumes::{CACHE_DIR, TLS_DIR, TMP, mounts, volumes};
use super::{METRICS_PORT, PROBES_PORT, Settings, Wanted, bytes, selector};
use crate::index::ENGINE_PORT;
use crate::names::{INFERENCE, LABEL_MODEL, LABEL_POOL, LABEL_TEMPLATE, Workload};

const MIB: u64 = 1 << 20;
/// As the image's user; any number but 0 would do.
const USER: i64 = 65_532;
/// Seconds that requests have to finish: as long as a gateway waits for one by default.
const DRAIN: u32 = 120;
/// Before SIGTERM comes. Until the process has said what to do with the signal, the kernel keeps it from a container's first
/// process, so one that was just started would stay for all of its grace period.
const BEFORE_TERM: u32 = 3;
/// Seconds after the drain for streams and threads to end, before the kubelet kills.
const AFTER_DRAIN: u32 = 15;
/// Beside the models, in main memory: libtorch and its code 250 MiB, thread stacks and allocator slack 100 MiB, HTTP
/// bodies and finished pictures 98 MiB, what a fetch has on its way from the store 128 MiB, and `TMP`.
const OVERHEAD: u64 = (448 + 128) * MIB + TMP;
/// CUDA's context and pinned buffers in main memory, on top of `OVERHEAD`.
const DEVICE_OVERHEAD: u64 = 1536 * MIB;

pub(super) fn template(wanted: &Wanted, settings: &Settings) -> PodTemplateSpec {
    let spec = pod(wanted, settings);
    let (mut labels, annotations) = (labels(wanted), annotations(wanted));
    labels.insert(LABEL_POOL.into(), wanted.shape.pool.clone());
    if let Workload::Dedicated { model, namespace: _ } = &wanted.workload {
        labels.insert(LABEL_MODEL.into(), model.clone());
    }
    labels.insert(LABEL_TEMPLATE.into(), digest(&spec, &labels, annotations.as_ref()));
    let metadata = ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// 48 bits: templates of one Deployment are told apart, not secured.
fn digest(spec: &PodSpec, labels: &BTreeMap<String, String>, annotations: Option<&BTreeMap<String, String>>) -> String {
    // Pods without annotations keep the digest that they had before there were any.
    let json = match annotations {
        None => serde_json::to_vec(&(spec, labels)),
        Some(annotations) => serde_json::to_vec(&(spec, labels, annotations)),
    };
    short_digest(&json.expect("a pod spec is JSON"))
}

pub(super) fn short_digest(json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    let first = digest.iter().take(6).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:012x}")
}

fn pod(wanted: &Wanted, settings: &Settings) -> PodSpec {
    let shape = &wanted.shape;
    PodSpec {
        containers: vec![container(wanted, settings)],
        volumes: Some(volumes(wanted)),
        resource_claims: claim::of_pod(wanted),
        runtime_class_name: shape.overrides.runtime_class_name.clone(),
        priority_class_name: shape.overrides.priority_class_name.clone(),
        service_account_name: shape.overrides.service_account_name.clone(),
        node_selector: (!shape.node_selector.is_empty()).then(|| shape.node_selector.clone()),
        tolerations: (!shape.tolerations.is_empty()).then(|| shape.tolerations.clone()),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(selector(wanted)),
            ..TopologySpreadConstraint::default()
        }]),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // Group of the mounted Secret and claim, so that the user may read them.
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(BEFORE_TERM + DRAIN + AFTER_DRAIN)),
        ..PodSpec::default()
    }
}

fn container(wanted: &Wanted, settings: &Settings) -> Container {
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    Container {
        name: INFERENCE.into(),
        image: Some(wanted.shape.image.clone().unwrap_or_else(|| settings.image.clone())),
        image_pull_policy: Some(settings.pull_policy.clone()),
        args: Some(args(wanted)),
        env: env(wanted),
        ports: Some(vec![port("engine", ENGINE_PORT), port("probes", PROBES_PORT), port("metrics", METRICS_PORT)]),
        resources: Some(resources(wanted)),
        // Two minutes for a slow disk to bring libtorch in; then ten seconds of silence and six failures are the end.
        startup_probe: Some(probe("/healthz", 1, 120)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(wanted)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: i64::from(BEFORE_TERM) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // The end of the log is the message of a container that died.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

/// What the pod's own defaults do not say.
fn args(wanted: &Wanted) -> Vec<String> {
    let shape = &wanted.shape;
    let mut args = vec![
        format!("--device={}", device(&shape.devices)),
        format!("--dtype={}", shape.precision.as_str()),
        format!("--threads={}", shape.cpu_milli.div_ceil(1000)),
        format!("--memory-bytes={}", shape.memory),
        format!("--drain-seconds={DRAIN}"),
        format!("--tls-dir={TLS_DIR}"),
        format!("--cache-dir={CACHE_DIR}"),
        format!("--cache-bytes={}", shape.cache.size),
    ];
    args.extend((shape.host_cache > 0).then(|| format!("--host-bytes={}", shape.host_cache)));
    args
}

/// A pod that finds no device must say so instead of drawing on the CPU at a GPU's price.
fn device(devices: &Devices) -> &'static str {
    match devices {
        Devices::Cpu => "cpu",
        Devices::Extended { resource, count: _ } if resource.starts_with("nvidia.com/") => "cuda",
        // Of makers whose names libtorch has no device for: it knows best.
        Devices::Class { name, .. } if name.ends_with("nvidia.com") => "cuda",
        Devices::Extended { .. } | Devices::Class { .. } => "auto",
    }
}

/// Memory and devices are limited to what is asked for: a pod that needs more would be killed in the middle of a picture.
/// Cores are asked for and not limited: they are lent, not taken, and a limit would leave idle ones unused.
fn resources(wanted: &Wanted) -> ResourceRequirements {
    let shape = &wanted.shape;
    let memory = match &shape.devices {
        // Models are in main memory itself.
        Devices::Cpu => shape.memory + OVERHEAD,
        // Weights pass through main memory on their way to the device, file by file and mapped: half of the device's
        // memory covers the largest file of a checkpoint that fills it, and the page cache can be taken back.
        Devices::Extended { .. } | Devices::Class { .. } => {
            shape.memory / 2 + OVERHEAD + DEVICE_OVERHEAD + shape.host_cache
        }
    };
    let mut limits: BTreeMap<String, Quantity> = [("memory".to_owned(), Quantity(bytes(memory)))].into();
    if let Devices::Extended { resource, count } = &shape.devices {
        limits.insert(resource.clone(), Quantity(count.to_string()));
    }
    let mut requests = limits.clone();
    requests.insert("cpu".to_owned(), Quantity(cores(shape.cpu_milli)));
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: claim::of_container(wanted) }
}

/// In the form that the API server keeps, so that what is there compares equal.
fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(PROBES_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
