//! What is mounted into a pod that draws: its certificate, room for temporary files, the cache, and a checkpoint's volume.
//! Knows where the pod looks for each; does not know what is in them.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::shape::{Cache, CachePlace};
use super::{Wanted, bytes};
use crate::names::Workload;
use crate::wire::{self, CLAIMS, IMAGES};

const MIB: u64 = 1 << 20;
pub(super) const TLS_DIR: &str = "/etc/easel/tls";
/// The pod's own default.
pub(super) const CACHE_DIR: &str = "/var/cache/easel";
/// Temporary files live in memory and count against the container's limit, so they have a bound of their own.
pub(super) const TMP: u64 = 64 * MIB;
/// The kubelet evicts a pod whose volume outgrows its limit: room for lists, locks and folders beside the weights.
const CACHE_SLACK: u64 = 64 * MIB;

pub(super) fn volumes(wanted: &Wanted) -> Vec<Volume> {
    let tls = SecretVolumeSource {
        secret_name: Some(wanted.workload.tls_secret()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    let tmp = empty_dir(Some("Memory"), TMP);
    let mut volumes = vec![
        Volume { name: "tls".into(), secret: Some(tls), ..Volume::default() },
        Volume { name: "tmp".into(), empty_dir: Some(tmp), ..Volume::default() },
        cache(&wanted.shape.cache, &wanted.workload),
    ];
    volumes.extend(wanted.volume.as_ref().map(checkpoint));
    volumes
}

/// A claim is seen in its own namespace only, and Dedicated pods live in others. Pools may share a node's folder: what
/// a pod reads there it hashes again before it uses it, so nobody can slip it other bytes.
fn cache(cache: &Cache, workload: &Workload) -> Volume {
    let Cache { size, place } = cache;
    let volume = Volume { name: "cache".into(), ..Volume::default() };
    match (place, workload) {
        (CachePlace::Node(path), _) => {
            let source = HostPathVolumeSource { path: path.clone(), type_: Some("DirectoryOrCreate".into()) };
            Volume { host_path: Some(source), ..volume }
        }
        (CachePlace::Claim(claim), Workload::Shared { .. }) => {
            Volume { persistent_volume_claim: Some(claimed(claim, false)), ..volume }
        }
        (CachePlace::Claim(_), Workload::Dedicated { .. }) | (CachePlace::Replica, _) => {
            Volume { empty_dir: Some(empty_dir(None, size.saturating_add(CACHE_SLACK))), ..volume }
        }
    }
}

fn checkpoint(volume: &wire::Volume) -> Volume {
    let named = Volume { name: "checkpoint".into(), ..Volume::default() };
    match volume {
        wire::Volume::Claim(claim) => Volume { persistent_volume_claim: Some(claimed(claim, true)), ..named },
        wire::Volume::Image { name: _, reference } => {
            let pull_policy = Some("IfNotPresent".into());
            Volume { image: Some(ImageVolumeSource { reference: Some(reference.clone()), pull_policy }), ..named }
        }
    }
}

fn claimed(claim: &str, read_only: bool) -> PersistentVolumeClaimVolumeSource {
    PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: read_only.then_some(true) }
}

fn empty_dir(medium: Option<&str>, size: u64) -> EmptyDirVolumeSource {
    EmptyDirVolumeSource {
        medium: medium.map(str::to_owned),
        size_limit: Some(Quantity(bytes(size))),
        ..EmptyDirVolumeSource::default()
    }
}

pub(super) fn mounts(wanted: &Wanted) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("tls", TLS_DIR, true), mount("tmp", "/tmp", false), mount("cache", CACHE_DIR, false)];
    mounts.extend(wanted.volume.as_ref().map(|volume| match volume {
        wire::Volume::Claim(claim) => mount("checkpoint", &format!("{CLAIMS}/{claim}"), true),
        wire::Volume::Image { name, reference: _ } => mount("checkpoint", &format!("{IMAGES}/{name}"), true),
    }));
    mounts
}
