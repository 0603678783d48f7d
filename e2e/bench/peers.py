"""Owns the Python environment that the peers of the benchmarks run in: five gigabytes, made once.
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


def python() -> Path:
    """The interpreter of an environment with exactly these packages."""
    folder = paths.CACHE / f"bench-{hashlib.sha256(' '.join(REQUIREMENTS).encode()).hexdigest()[:12]}"
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with step("peers", " ".join(REQUIREMENTS)):
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS], check=True)
        (folder / "complete").touch()
    return interpreter
