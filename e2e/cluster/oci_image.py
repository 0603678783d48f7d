"""Owns OCI images made without Docker or a registry: a declarative description in, an OCI-layout archive out, the same bytes for the same input.
It must not know what the programs inside do, nor where the archive goes."""

import contextlib
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from oci_layer import Blob, File, Folder, Layer, Link, Text, pack  # noqa: F401  (File to Text: the vocabulary of callers)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
NONROOT = 65532


@dataclass(frozen=True)
class Image:
    name: str  # with its tag
    entrypoint: tuple[str, ...]
    layers: tuple[Layer, ...]
    user: str = f"{NONROOT}:{NONROOT}"
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    archive: Path
    digest: str  # of the manifest: what containerd stores as the image's target
    layers: tuple[Blob, ...]
    reused: bool


def base_layer() -> Layer:
    """The folders and the users that programs expect to find."""
    return Layer("base", (
        Folder("/tmp", 0o1777), Folder("/etc"), Folder("/proc"), Folder("/sys"), Folder("/dev"), Folder("/var/run"),
        Folder("/home/nonroot", 0o750, NONROOT),
        Text("/etc/passwd", f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/home/nonroot:/sbin/nologin\n"),
        Text("/etc/group", f"root:x:0:\nnonroot:x:{NONROOT}:\n"),
        Text("/etc/nsswitch.conf", "hosts: files dns\n"),
    ))


def shared_libraries(*binaries: Path, search: tuple[Path, ...] = (), exclude: tuple[Path, ...] = ()) -> tuple[File, ...]:
    """The system libraries that dynamic binaries load, with the loader, at the paths where the loader looks for them.

    `search` is where ldd finds libraries that lie elsewhere at run time; what it finds below `exclude` is left out.
    """
    found: dict[str, File] = {}
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, search))}
    for path in binaries:
        listing = subprocess.run(["ldd", str(path)], capture_output=True, text=True, env=environment, check=False).stdout
        for line in listing.splitlines():
            if "not found" in line:
                raise FileNotFoundError(f"{path} needs {line.strip()}")
            where = line.partition("=>")[2].split() or line.split()
            if not where or not where[0].startswith("/") or _below(where[0], exclude):
                continue
            # The loader knows /lib64/ld-linux… by its full name, and all else by these folders.
            name = where[0] if "/ld-linux" in where[0] else f"/usr/lib/{platform.machine()}-linux-gnu/{Path(where[0]).name}"
            found[name] = File(Path(where[0]).resolve(), name, 0o755)
    return tuple(found[name] for name in sorted(found))


def _below(path: str, folders: tuple[Path, ...]) -> bool:
    return any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in folders)


def build(image: Image, archive: Path, cache: Path) -> Built:
    """Writes `archive` unless it already holds exactly this image."""
    layers = tuple(pack(layer, cache) for layer in image.layers)
    config = _json({
        "architecture": ARCHITECTURE, "os": "linux",
        "config": {"Entrypoint": list(image.entrypoint), "User": image.user, "WorkingDir": "/", "Labels": image.labels,
                   "Env": [f"{k}={v}" for k, v in sorted({"PATH": "/usr/local/bin:/usr/bin:/bin", **image.env}.items())]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
        "history": [{"created_by": layer.name} for layer in layers],
    })
    manifest = _json({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(CONFIG, config),
        "layers": [{"mediaType": LAYER, "digest": f"sha256:{layer.digest}", "size": layer.size} for layer in layers],
    })
    descriptor = _descriptor(MANIFEST, manifest)
    if archive.exists() and archive_digest(archive) == (image.name, descriptor["digest"]):
        return Built(archive, descriptor["digest"], layers, reused=True)
    names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rpartition(":")[2]}
    index = _json({"schemaVersion": 2, "manifests": [
        {**descriptor, "annotations": names, "platform": {"architecture": ARCHITECTURE, "os": "linux"}}]})
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w") as out:
        _member(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _member(out, "index.json", index)
        for data in (manifest, config):
            _member(out, f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data)
        for digest, path in {layer.digest: layer.path for layer in layers}.items():
            info = tarfile.TarInfo(f"blobs/sha256/{digest}")
            info.size = path.stat().st_size
            with open(path, "rb") as content:
                out.addfile(info, content)
    unfinished.rename(archive)
    return Built(archive, descriptor["digest"], layers, reused=False)


def archive_digest(archive: Path) -> tuple[str, str] | None:
    """The name and the manifest's digest of the image in an archive, or None if it holds none."""
    with contextlib.suppress(tarfile.TarError, KeyError, ValueError, OSError), tarfile.open(archive) as content:
        only = json.load(content.extractfile("index.json"))["manifests"][0]
        return only["annotations"]["io.containerd.image.name"], only["digest"]
    return None


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def report(image: Image, built: Built, seconds: float) -> str:
    """Sizes for a person to read: one line an image, one a layer."""
    state = "unchanged" if built.reused else f"written ({seconds:.1f} s)"
    lines = [f"{image.name}  {state}  {built.archive.stat().st_size / 1e6:.1f} MB  {built.digest}"]
    lines += [f"  {b.name:<12} {b.size / 1e6:8.1f} MB compressed  {b.raw_size / 1e6:8.1f} MB raw  {'cached' if b.reused else 'packed'}"
              for b in built.layers]
    return "\n".join(lines)
