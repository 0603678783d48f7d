"""What the promises about checkpoints share: copies of the default model that differ, the stores, and models that name them.
It must not hold a check."""

import functools
import json
import os
import secrets
import shutil
import struct
import tempfile
from pathlib import Path

from easel import build, gateway, paths
from easel.kube import condition
from stores import credentials, lifecycle, places, registry
from promises.world import CLUSTER, GATEWAY, Promise, model

SECRET = "store"


def variant(name: str, folder: Path) -> Path:
    """A copy of the default model that draws the same and has other bytes in every file of weights: no cache and no registry knows it."""
    shutil.copytree(paths.MODEL, folder / name)
    for weights in (folder / name).rglob("*.safetensors"):
        raw = weights.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:8 + size])
        header["__metadata__"] = {**header.get("__metadata__", {}), "variant": f"{name} {secrets.token_hex(8)}"}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        weights.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size:])
    return folder / name


def easel(*arguments) -> str:
    """`kubectl easel …`, as kubectl runs it: found in PATH by its name."""
    environment = {**registry.WHO, "PATH": f"{build.KUBECTL_EASEL.parent}:{CLUSTER.environment['PATH']}"}
    done = CLUSTER.run("kubectl", "easel", *map(str, arguments), check=False, environment=environment)
    assert done.returncode == 0, f"kubectl easel {' '.join(map(str, arguments))}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def push(folder: Path, repository: str, *flags, tag: str = "latest") -> str:
    """Pushes with our own command; returns the digest that it printed."""
    said = easel("push", folder, f"oci://{places.HOST_REGISTRY}/{repository}:{tag}", "--ca", places.AUTHORITY, *flags)
    return next(word for word in reversed(said.replace("@", " ").split()) if word.startswith("sha256:"))


def oci(repository: str, digest: str, host: str = places.REGISTRY, secret: str | None = SECRET) -> dict:
    found = {"uri": f"oci://{host}/{repository}@{digest}"}
    return {**found, "secretRef": {"name": secret}} if secret else found


def s3(bucket: str, prefix: str, digest: str) -> dict:
    return {"uri": f"s3://{bucket}/{prefix}", "digest": digest, "endpoint": places.S3, "region": "us-east-1", "secretRef": {"name": "bucket"}}


def listing(folder: Path) -> str:
    return build.digest(folder)


def awaits(name: str, kind: str, reason: str, timeout: float = 90, namespace: str = "default") -> dict:
    """Watches until a condition has this reason, and returns it; fails with what the model says instead."""
    path = f'{{.status.conditions[?(@.type=="{kind}")].reason}}'
    done = CLUSTER.run("kubectl", "-n", namespace, "wait", f"imagemodel/{name}", f"--for=jsonpath={path}={reason}",
                       f"--timeout={timeout:.0f}s", "-o", "json", check=False, timeout=timeout + 30)
    if done.returncode != 0:
        found = CLUSTER.get("imagemodel", name, "-n", namespace)
        said = "; ".join(f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in (found or {}).get("status", {}).get("conditions", []))
        raise AssertionError(f"{name} has no {kind} with reason {reason} within {timeout:.0f} s: {said or done.stderr}")
    # The object that matched, not a later one: a refused checkpoint is tried again within seconds.
    return condition(json.loads(done.stdout), kind)


def serves(name: str, timeout: float = 90) -> None:
    awaits(name, "Ready", "AllPartsReady", timeout)


def draws(name: str, prompt: str = "pizza", **fields) -> bytes:
    answer = gateway.draw(GATEWAY, model=name, prompt=prompt, seed=7, **fields)
    assert answer.status == 200, f"{name} draws nothing: {answer.status} {answer.body[:500]!r}"
    return answer.pictures()[0]


def refuses(name: str) -> int:
    """The status of a request to a model that must not be served; the caller gives it two seconds."""
    return gateway.draw(GATEWAY, model=name, prompt="pizza", headers={"x-easel-deadline-ms": "2000"}).status


@functools.cache
def stores() -> None:
    """Once a run: it takes seconds to see that all is there."""
    lifecycle.ensure(CLUSTER)


class Shelf(Promise):
    """A promise with stores, the Secrets that open them, and a folder for variants of the model."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stores()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        os.chmod(cls.folder, 0o755)
        for secret in (credentials.registry_secret(SECRET), credentials.s3_secret("bucket")):
            CLUSTER.apply(secret)
            cls.addClassCleanup(CLUSTER.kubectl, "-n", "default", "delete", "secret", secret["metadata"]["name"], "--ignore-not-found")

    def serve(self, name: str, checkpoint: dict, **spec) -> None:
        """Applies a model and returns once it serves."""
        self.create(model(name, checkpoint=checkpoint, **spec))
        serves(name)
