"""Owns how the cluster's programs come from pinned Go modules into a cache that outlives the checkout.
It must not know how they are run."""

import hashlib
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import settings
from .progress import Failure, run, say

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


@dataclass(frozen=True)
class Program:
    name: str
    package: str


KUBERNETES = "k8s.io/kubernetes"
CONTAINERD = "github.com/containerd/containerd/v2"
CNI = "github.com/containernetworking/plugins"
HELM = "helm.sh/helm/v4"
ETCD = "go.etcd.io/etcd/server/v3"
COREDNS = "github.com/coredns/coredns"

UPSTREAM = (
    Program("etcd", ETCD),
    Program("kube-apiserver", f"{KUBERNETES}/cmd/kube-apiserver"),
    Program("kube-controller-manager", f"{KUBERNETES}/cmd/kube-controller-manager"),
    Program("kube-scheduler", f"{KUBERNETES}/cmd/kube-scheduler"),
    Program("kubelet", f"{KUBERNETES}/cmd/kubelet"),
    Program("kube-proxy", f"{KUBERNETES}/cmd/kube-proxy"),
    Program("kubectl", f"{KUBERNETES}/cmd/kubectl"),
    Program("containerd", f"{CONTAINERD}/cmd/containerd"),
    Program("containerd-shim-runc-v2", f"{CONTAINERD}/cmd/containerd-shim-runc-v2"),
    Program("ctr", f"{CONTAINERD}/cmd/ctr"),
    Program("cni/bridge", f"{CNI}/plugins/main/bridge"),
    Program("cni/loopback", f"{CNI}/plugins/main/loopback"),
    Program("cni/host-local", f"{CNI}/plugins/ipam/host-local"),
    Program("cni/portmap", f"{CNI}/plugins/meta/portmap"),
    Program("coredns", "./coredns"),
    Program("helm", f"{HELM}/cmd/helm"),
)
OWN = (Program("pause", "./pause"), Program("relay", "./relay"), Program("probe", "./probe"))
STORES = (
    Program("registry", "./registry"),
    Program("s3", "./s3"),
    Program("throttle", "./throttle"),
    Program("oras", "oras.land/oras/cmd/oras"),
)


def linker_flags() -> str:
    """Without these, `kubectl version` and its like would tell the versions of an unreleased tree."""
    kubernetes = settings.module_version(KUBERNETES)
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    variables = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        f"{CONTAINERD}/version.Version": settings.module_version(CONTAINERD).removeprefix("v"),
        f"{CNI}/pkg/utils/buildversion.BuildVersion": settings.module_version(CNI),
        f"{HELM}/internal/version.version": settings.module_version(HELM),
    }
    return "-s -w " + " ".join(f"-X {name}={value}" for name, value in variables.items())


def _folder(prefix: str, source: Path, flags: str) -> Path:
    digest = hashlib.sha256(f"{flags} {FLAGS} {ENVIRONMENT} {platform.machine()}".encode())
    for path in sorted(p for p in source.rglob("*") if p.suffix in {".mod", ".sum", ".go"}):
        digest.update(f"\n{path.relative_to(source)}\n".encode() + path.read_bytes())
    return settings.CACHE / f"{prefix}-{digest.hexdigest()[:12]}" / "bin"


def upstream_folder() -> Path:
    return _folder(f"kubernetes-{settings.module_version(KUBERNETES)}", settings.MODULES, linker_flags())


def own_folder() -> Path:
    return _folder("programs", settings.PROGRAMS, "-s -w")


def stores_folder() -> Path:
    return _folder("stores", settings.STORES, "-s -w")


def binary(name: str) -> Path:
    for programs, folder in ((OWN, own_folder), (STORES, stores_folder)):
        if any(p.name == name for p in programs):
            return folder() / name
    return upstream_folder() / name


def build() -> None:
    """Builds what is missing. Each program is renamed into place whole, so a build that was killed goes on from there."""
    _build_all(OWN, settings.PROGRAMS, own_folder(), "-s -w")
    _build_all(UPSTREAM, settings.MODULES, upstream_folder(), linker_flags())


def build_stores() -> None:
    """The registry, the S3 server and what tests use beside them; a cluster runs without."""
    _build_all(STORES, settings.STORES, stores_folder(), "-s -w")


def _build_all(programs: tuple[Program, ...], source: Path, folder: Path, flags: str) -> None:
    missing = [p for p in programs if not (folder / p.name).exists()]
    if not missing:
        return
    if not shutil.which("go"):
        raise Failure("Go is missing: install Go 1.26.7 or newer and put it into PATH")
    say("build", f"{len(missing)} of {len(programs)} programs into {folder}")
    began = time.monotonic()
    for program in missing:
        _build_one(program, source, folder, flags)
    say("build", f"{len(missing)} programs ({time.monotonic() - began:.0f} s)")


def _build_one(program: Program, source: Path, folder: Path, flags: str) -> None:
    began = time.monotonic()
    target = folder / program.name
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    jobs = os.environ.get("EASEL_BUILD_JOBS") or str(os.cpu_count() or 1)
    try:
        run("go", "build", "-p", jobs, *FLAGS, "-ldflags", flags, "-o", unfinished, program.package,
            env={**os.environ, **ENVIRONMENT}, cwd=source)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    say(program.name, f"built, {target.stat().st_size / 1e6:.0f} MB ({time.monotonic() - began:.1f} s)")
