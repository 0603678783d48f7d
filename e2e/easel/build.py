"""Owns the way from source to images: cargo's release build, then the two OCI archives.
It must not install anything into a cluster."""

import hashlib
import os
import subprocess
from pathlib import Path

from easel import paths
from onenode.progress import step

PACKAGES = ("-p", "easel-operator", "-p", "easel-inference", "-p", "kubectl-easel", "--features", "easel-inference/torch")
OPERATOR, INFERENCE, KUBECTL_EASEL = (paths.TARGET / "release" / name for name in ("easel-operator", "easel-inference", "kubectl-easel"))


def binaries() -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    environment = {**os.environ, "EASEL_COMMIT": commit.stdout.strip() or "unknown"}
    with step("binaries", "easel-operator, easel-inference, kubectl-easel (release)"):
        subprocess.run(["cargo", "build", "--release", "--locked", *PACKAGES], cwd=paths.ROOT, env=environment, check=True)


def inference() -> Path:
    """The pod's program alone."""
    binaries()
    return INFERENCE


def plugin() -> Path:
    """`kubectl easel` alone, which needs no libtorch."""
    with step("plugin", "kubectl-easel (release)"):
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "kubectl-easel"], cwd=paths.ROOT, check=True)
    return KUBECTL_EASEL


def examples(*names: str) -> dict[str, Path]:
    """What a pod does as programs of their own, for benchmarks: `fetch` and `load` are the two halves of a cold start."""
    with step("examples", f"{', '.join(names)} (release)"):
        # Beside the same packages, so that features unify as in `binaries` and no dependency is built twice.
        wanted = [argument for name in names for argument in ("--example", name)]
        subprocess.run(["cargo", "build", "--release", "--locked", *PACKAGES, "-p", "easel-checkpoints", *wanted], cwd=paths.ROOT, check=True)
    return {name: paths.TARGET / "release" / "examples" / name for name in names}


def images(load: bool) -> tuple[str, str]:
    """Makes the archives and returns the images' names; `load` imports them into the local cluster. A tag is the hash of
    what is inside, so that a changed image rolls its pods and an unchanged one does not."""
    operator, inference = _tag(OPERATOR), _tag(INFERENCE, *map(digest, paths.MODELS), paths.LIBTORCH.name)
    with step("images", f"easel-operator:{operator}, easel-inference:{inference}"):
        _archive(load, operator, "--operator", OPERATOR)
        _archive(load, inference, "--inference", INFERENCE, "--libtorch", paths.LIBTORCH, "--models", *paths.MODELS)
    return f"localhost/easel-operator:{operator}", f"localhost/easel-inference:{inference}"


def _tag(binary: Path, *more: str) -> str:
    content = hashlib.sha256(binary.read_bytes())
    content.update("".join(more).encode())
    return content.hexdigest()[:12]


def _archive(load: bool, tag: str, *what) -> None:
    command = ["python3", paths.E2E / "images" / "build.py", "--tag", tag, *what]
    subprocess.run([*command, *(["--load"] if load else [])], check=True)


def digest(folder: Path = paths.MODEL) -> str:
    """What pins a folder's files, by default the default checkpoint's, as `sha256sum` sees it."""
    listing = "find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    done = subprocess.run(["bash", "-c", listing], cwd=folder, capture_output=True, text=True, check=True)
    return "sha256:" + done.stdout.split()[0]
