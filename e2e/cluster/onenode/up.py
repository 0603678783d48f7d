"""Owns the order in which the cluster comes up, from nothing or from any half of it.
It must not know how a single part works; running it twice changes nothing."""

import fcntl
import contextlib
import time

from . import api, build, cgroups, control_plane, down, images, kernel, network, node, objects, packages, pki, process, settings
from .progress import Failure, say, step, wait_until

_IDENTITY = settings.STATE / "identity"


@contextlib.contextmanager
def exclusive():
    """One `up` or `down` at a time; the second waits."""
    settings.CACHE.mkdir(parents=True, exist_ok=True)
    with open(settings.CACHE / "cluster.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("cluster", "waiting for another up or down to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up() -> None:
    build.build()
    packages.install_missing()
    began = time.monotonic()
    _discard_other_state()
    _folders()
    if network.create():
        say("network", f"namespace {settings.NAMESPACE}, node {settings.NODE_ADDRESS}, no uplink")
    with step("keys", "ready"):
        pki.create()
    node.write_configuration()
    _control_plane()
    objects.apply()
    _node()
    wait_until(f"{settings.NODE} is Ready", api.node_ready, 60)
    for name in settings.EXPOSED:
        _expose(name)
    say("cluster", f"Kubernetes {settings.module_version(build.KUBERNETES)} is up ({time.monotonic() - began:.1f} s)")
    say("cluster", f"export KUBECONFIG={settings.KUBECONFIG}")


def _discard_other_state() -> None:
    """State that other binaries wrote, or that a reboot cut in two, is not worth migrating."""
    identity = build.upstream_folder().parent.name
    if settings.STATE.exists():
        kept = _IDENTITY.read_text() if _IDENTITY.exists() else "nothing complete"
        etcd_lost = (settings.PKI / "ca.crt").exists() and not settings.ETCD_DATA.exists() and not process.running("etcd")
        if kept != identity or etcd_lost:
            say("cluster", f"the state is of {'a lost etcd' if etcd_lost else kept}; starting anew")
            down.down()
    settings.STATE.mkdir(parents=True, exist_ok=True)
    _IDENTITY.write_text(identity)


def _folders() -> None:
    for folder in (settings.RUN, settings.PKI, settings.ETC, settings.LOG, settings.VAR, settings.SOCKETS, settings.ETCD_DATA):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)


def _control_plane() -> None:
    etcd, api_server, *others = control_plane.components()
    process.ensure(etcd)
    _expose("api", required=True)
    process.ensure(api_server)
    _ensure_together(others)


def _node() -> None:
    kernel.remember()
    cgroups.create()
    process.ensure(node.containerd())
    images.load(images.pause_archive(), quiet=True)
    _ensure_together([node.kubelet(), node.kube_proxy(), node.coredns()])


def _ensure_together(components: list[process.Component]) -> None:
    """Starts all before it waits for the first."""
    started = [c for c in components if process.begin(c)]
    for component in started:
        process.await_healthy(component)


def _expose(name: str, required: bool = False) -> None:
    component = network.relay(name)
    if not process.running(component.name):
        try:
            network.check_free(name)
        except Failure as failure:
            if required:
                raise
            port = settings.EXPOSED[name][1]
            say(component.name, f"left out: {failure}; use {settings.LINK_ADDRESS}:{port}")
            return
    process.ensure(component)
