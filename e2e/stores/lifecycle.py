"""Owns how the stores come up, go away for a while, and are taken down.
It must not know what is pushed to them."""

import os
import shutil

import oci_image
from easel.kube import Cluster
from onenode import build, images, settings, up
from onenode.progress import step

from stores import credentials, manifests, places

PROGRAMS = ("registry", "s3", "throttle")


def ensure(cluster: Cluster) -> None:
    """Builds, imports and starts what is missing; the second time it takes a second."""
    build.build_stores()
    known = credentials.ensure()
    for folder in (places.REGISTRY_DATA, places.S3_DATA):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, oci_image.NONROOT, oci_image.NONROOT)
    image = _image()
    with step("stores", f"registry at {places.HOST_REGISTRY}, S3 at {places.HOST_S3}"):
        cluster.apply(*manifests.everything(image, known))
        for name in ("registry", "s3"):
            cluster.kubectl("-n", places.NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=90s")


def _image() -> str:
    tag = build.stores_folder().parent.name.rpartition("-")[2]
    programs = oci_image.Layer("programs", tuple(oci_image.File(build.binary(name), f"/bin/{name}", 0o755) for name in PROGRAMS), compression=1)
    image = oci_image.Image(f"localhost/checkpoint-stores:{tag}", ("/bin/registry",), (oci_image.base_layer(), programs))
    archive = oci_image.build(image, settings.CACHE / "images" / f"checkpoint-stores-{tag}.tar", settings.CACHE / "layers").archive
    with up.exclusive():
        images.load(archive, quiet=True)
    return image.name


def remove(cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", places.NAMESPACE, "--ignore-not-found", "--timeout=90s")
    for folder in (places.DATA, places.STATE):
        shutil.rmtree(folder, ignore_errors=True)


def stop(cluster: Cluster, name: str) -> None:
    """The store goes away: its connections break, and nobody answers at its address until `start`."""
    cluster.kubectl("-n", places.NAMESPACE, "scale", f"deployment/{name}", "--replicas=0")
    cluster.kubectl("-n", places.NAMESPACE, "wait", "--for=delete", "pod", "-l", f"app={name}", "--timeout=60s")


def start(cluster: Cluster, name: str) -> None:
    cluster.kubectl("-n", places.NAMESPACE, "scale", f"deployment/{name}", "--replicas=1")
    cluster.kubectl("-n", places.NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=60s")


def throttle(bytes_a_second: int | None) -> None:
    """Bounds what the slow port sends, for all connections together; 0 holds all back, None lifts the bound."""
    path = places.CONTROL / "rate"
    if bytes_a_second is None:
        path.unlink(missing_ok=True)
        return
    path.with_suffix(".new").write_text(str(bytes_a_second))
    path.with_suffix(".new").rename(path)
