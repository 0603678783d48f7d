"""Owns Easel's installation on a cluster: charts, the example pool and model, and the way to the gateway.
It must not start the cluster or build what it installs."""

from easel import paths
from easel.kube import Cluster, condition, wait
from onenode.progress import Failure, step

NAMESPACE = "easel-system"
GATEWAY = "http://127.0.0.1:8080"
NODE_PORT = 30080  # the local cluster's one table of ports leads 127.0.0.1:8080 here
LOCAL_VALUES = (f"gateway.url={GATEWAY}", "gateway.service.type=NodePort", f"gateway.service.nodePort={NODE_PORT}")


def charts(cluster: Cluster, operator: str, inference: str, values: tuple[str, ...] = LOCAL_VALUES) -> None:
    """Installs or upgrades both charts with these images, and waits for the operator."""
    repository, _, tag = operator.rpartition(":")
    values = (f"image.repository={repository}", f"image.tag={tag}", f"inference.image={inference}", *values)
    with step("namespace", f"{NAMESPACE}, Pod Security restricted"):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    upgrade = ("upgrade", "--install", "--namespace", NAMESPACE)
    with step("charts", "easel-crds, easel"):
        cluster.helm(*upgrade, "easel-crds", str(paths.CHARTS / "easel-crds"))
        sets = [flag for value in values for flag in ("--set", value)]
        cluster.helm(*upgrade, "easel", str(paths.CHARTS / "easel"), *sets)
    with step("operator", "available"):
        cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/easel-operator", "--timeout=120s")


def examples(cluster: Cluster) -> None:
    """The example pool and model; returns once the model is ready, and says what it waits for if it is not."""
    with step("GpuPool, ImageModel", "applied"):
        cluster.kubectl("apply", "-f", str(paths.MANIFESTS / "pool.yaml"), "-f", str(paths.MANIFESTS / "model.yaml"))
    with step("ImageModel emoji", "ready"):
        ready(cluster, "emoji")


def ready(cluster: Cluster, name: str, namespace: str = "default", timeout: float = 180) -> dict:
    def probe():
        model = cluster.get("imagemodel", name, "-n", namespace)
        return model if condition(model, "Ready").get("status") == "True" and settled(model) else None
    try:
        return wait(f"ImageModel {namespace}/{name} is ready", probe, timeout)
    except AssertionError as error:
        conditions = cluster.get("imagemodel", name, "-n", namespace).get("status", {}).get("conditions", [])
        said = "; ".join(f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in conditions)
        raise Failure(f"{error}; its conditions: {said or 'none'}") from error


def settled(thing: dict) -> bool:
    """Whether the status speaks of the newest spec."""
    return thing.get("status", {}).get("observedGeneration") == thing["metadata"]["generation"]


def uninstall(cluster: Cluster) -> None:
    for release in ("easel", "easel-crds"):
        cluster.helm("uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
