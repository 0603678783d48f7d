"""Owns the Python environments that the peers of the benchmarks run in: five gigabytes, made once, and servers for what is in them.
It must not measure anything."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from easel import paths
from onenode.progress import step

REQUIREMENTS = ("torch==2.11.0", "diffusers==0.42.1", "transformers==5.23.0", "accelerate==1.15.0", "safetensors==0.8.0",
                "runai-model-streamer==0.17.0", "fastsafetensors==0.5.0")
SERVERS = ("ray[serve]==2.60.0", "litserve==0.2.19", "aiohttp==3.14.5")


def python() -> Path:
    """The interpreter of an environment with exactly these packages."""
    return _environment(REQUIREMENTS)


def servers() -> Path:
    """The interpreter of an environment with the servers beside the peers, which lie where `python` put them."""
    return _environment(SERVERS, beside=python().parent.parent)


def _environment(requirements: tuple[str, ...], beside: Path | None = None) -> Path:
    key = " ".join([*requirements, beside.name if beside else ""]).strip()
    folder = paths.CACHE / f"bench-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with step("peers", " ".join(requirements)):
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            if beside:
                own, others = (next(root.glob("lib/python*/site-packages")) for root in (folder, beside))
                (own / "peers.pth").write_text(f"{others}\n")
            subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True)
        (folder / "complete").touch()
    return interpreter
