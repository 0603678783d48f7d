"""Owns the registry as a client and as its disk see it: pushing with oras, requests it had, blobs to spoil.
It must not know what an artifact means."""

import json
import os
import re
import subprocess
from pathlib import Path

from easel.kube import Cluster
from onenode.build import binary

from stores import places

LAYER = "application/octet-stream"
# For programs on the host that push and pull: who they are.
WHO = {"DOCKER_CONFIG": str(places.DOCKER_CONFIG)}


def oras(*arguments, cwd: Path | None = None) -> str:
    command = [str(binary("oras")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **WHO}, cwd=cwd, check=False)
    assert done.returncode == 0, f"{' '.join(command)[:300]} failed: {done.stderr.strip()[-2000:]}"
    return done.stdout


def push(folder: Path, repository: str, tag: str = "latest") -> str:
    """Pushes the files of a folder as plain layers, as any user of oras does; returns the manifest's digest."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    said = oras("push", f"{places.HOST_REGISTRY}/{repository}:{tag}", "--ca-file", places.AUTHORITY, "--format", "json",
                *(f"{name}:{LAYER}" for name in files), cwd=folder)
    return json.loads(said)["digest"]


def pull(repository: str, digest: str, folder: Path) -> None:
    oras("pull", f"{places.HOST_REGISTRY}/{repository}@{digest}", "--ca-file", places.AUTHORITY, "--output", folder)


def tag(repository: str, digest: str, name: str) -> None:
    oras("tag", f"{places.HOST_REGISTRY}/{repository}@{digest}", name, "--ca-file", places.AUTHORITY)


def manifest(digest: str) -> dict:
    return json.loads(blob(digest).read_bytes())


def blob(digest: str) -> Path:
    """Where the registry keeps the bytes of a digest."""
    hexadecimal = digest.removeprefix("sha256:")
    return places.REGISTRY_DATA / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


def largest_layer(digest: str) -> str:
    return max(manifest(digest)["layers"], key=lambda layer: layer["size"])["digest"]


def hide(repository: str):
    """The repository is as if it had never been pushed, until the function that this returns is called."""
    shown = places.REGISTRY_DATA / "docker/registry/v2/repositories" / repository
    hidden = shown.with_name(f"{shown.name}.hidden")
    subprocess.run(["rm", "-rf", hidden], check=True)
    shown.rename(hidden)
    return lambda: hidden.rename(shown) and None


def link(repository: str, kind: str, digest: str) -> None:
    """Makes the repository name a digest (`_manifests/revisions` or `_layers`), whatever its bytes are."""
    path = places.REGISTRY_DATA / "docker/registry/v2/repositories" / repository / kind / "sha256" / digest.removeprefix("sha256:") / "link"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest)


def requests(cluster: Cluster, repository: str) -> list[str]:
    """Paths of all blobs of a repository that were asked for with GET, once a request, since the registry's pod started."""
    return [path for path, _ in _log(cluster, repository)]


def sent(cluster: Cluster, repository: str) -> int:
    """Bytes of its blobs that went out since the registry's pod started."""
    return sum(count for _, count in _log(cluster, repository))


def _log(cluster: Cluster, repository: str) -> list[tuple[str, int]]:
    log = cluster.kubectl("-n", places.NAMESPACE, "logs", "deployment/registry", "--all-containers", "--tail=-1")
    found = re.findall(rf'"GET (/v2/{re.escape(repository)}/blobs/[^ "]+) HTTP[^"]*" \d+ (\d+)', log)
    return [(path, int(count)) for path, count in found]
