"""What every promise needs: the cluster, the gateway, a ready model, and manifests as values.
It must not hold a check."""

import copy
import os
import signal
import unittest
from pathlib import Path

from easel import build, install
from easel.kube import Cluster, condition, wait

CLUSTER = Cluster()
GATEWAY = install.GATEWAY
SYSTEM = install.NAMESPACE
PNG = b"\x89PNG\r\n\x1a\n"
# About this many seconds on two cores: long enough that something can happen meanwhile.
LONG = {"n": 10, "steps": 100}


def pool(name: str, **spec) -> dict:
    base = {"devices": "cpu", "cpu": "400m", "memory": "1Gi", "price": {"usdPerHour": "0.04"}, "limits": {"replicas": 4}}
    return {"apiVersion": "easel.dev/v1alpha1", "kind": "GpuPool", "metadata": {"name": name}, "spec": {**base, **spec}}


def model(name: str, namespace: str = "default", **spec) -> dict:
    base = {"checkpoint": {"uri": "file:///models/emoji", "digest": build.digest()}, "memory": "256Mi",
            "defaults": {"size": "64x64", "steps": 20, "guidanceScale": 3}, "limits": {"maxPixels": 4096, "maxSteps": 100, "maxImages": 10}}
    return {"apiVersion": "easel.dev/v1alpha1", "kind": "ImageModel", "metadata": {"name": name, "namespace": namespace},
            "spec": {**copy.deepcopy(base), **spec}}


def route(name: str, *backends: str, namespace: str = "default", **spec) -> dict:
    return {"apiVersion": "easel.dev/v1alpha1", "kind": "ImageRoute", "metadata": {"name": name, "namespace": namespace},
            "spec": {"backends": [{"model": backend} for backend in backends], **spec}}


def status(name: str, kind: str, namespace: str = "default", of: str = "imagemodel") -> dict:
    """One condition of an object once it speaks of the newest spec."""
    thing = CLUSTER.get(of, name, "-n", namespace)
    return condition(thing, kind) if thing and install.settled(thing) else {}


def until(name: str, kind: str, value: str, reason: str | None = None, namespace: str = "default", timeout: float = 90,
          of: str = "imagemodel") -> dict:
    def probe():
        found = status(name, kind, namespace, of)
        return found if found.get("status") == value and reason in (None, found.get("reason")) else None
    return wait(f"{namespace}/{name} has {kind}={value} {reason or ''}", probe, timeout)


def pods(selector: str, namespace: str = SYSTEM) -> list[dict]:
    return [pod for pod in CLUSTER.get("pods", "-n", namespace, "-l", selector) if not pod["metadata"].get("deletionTimestamp")]


def inference_pods() -> list[dict]:
    return pods("app.kubernetes.io/name=easel-inference,easel.dev/pool=cpu")


def lease() -> dict:
    return CLUSTER.get("lease", "easel-operator", "-n", SYSTEM)["spec"]


def processes(pod: dict) -> list[int]:
    """Easel's own processes of a pod, as the node's kernel knows them: by the pod's cgroup."""
    found, uid = [], pod["metadata"]["uid"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if uid in (process / "cgroup").read_text() and (process / "comm").read_text().startswith("easel"):
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended meanwhile
    return found


def kill(pod: dict) -> None:
    """A crash: the process ends at once, without a signal that it could handle, and the pod goes for good."""
    victims = processes(pod)
    assert victims, f"no process of {pod['metadata']['name']}"
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    meta = pod["metadata"]
    CLUSTER.kubectl("-n", meta["namespace"], "delete", "pod", meta["name"], "--grace-period=0", "--force", "--wait=false")


def events(name: str, namespace: str = "default") -> list[dict]:
    found = CLUSTER.get("events.events.k8s.io", "-n", namespace)
    return [event for event in found if event.get("regarding", {}).get("name") == name]


class Promise(unittest.TestCase):
    """A promise starts from the example pool and model, ready, and leaves nothing else behind."""

    @classmethod
    def setUpClass(cls):
        install.examples(CLUSTER)
        wait("the pool has come to rest", lambda: len(CLUSTER.get("pods", "-n", SYSTEM, "-l", "easel.dev/pool=cpu")) == 1, 120)

    def create(self, *manifests: dict) -> None:
        for manifest in manifests:
            self.addCleanup(self.remove, manifest)
            CLUSTER.apply(manifest)

    def remove(self, manifest: dict) -> None:
        namespace = manifest["metadata"].get("namespace")
        where = ("-n", namespace) if namespace else ()
        CLUSTER.kubectl("delete", manifest["kind"].lower(), manifest["metadata"]["name"], *where, "--ignore-not-found", "--timeout=90s")
