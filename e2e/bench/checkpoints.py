"""Owns the folders with random weights that a pod is measured with, made once by the peers' Python environment.
It must not know what is measured."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from easel import build, paths
from onenode.progress import step

HERE = Path(__file__).resolve().parent
#: Folder in the cache, the script that makes it, what the script is told between folder and tokenizer, the file it writes last.
RECIPES = {
    "unet": ("engine-unet", "engine_weights.py", ("unet",), "parameters.json"),
    "dit": ("engine-dit", "engine_weights.py", ("dit",), "parameters.json"),
    "half-sd": ("half-sd", "make_weights.py", (), "model_index.json"),
}
SAMPLERS = {"dit": "flow_match_euler"}


@dataclass(frozen=True)
class Checkpoint:
    name: str
    folder: Path
    digest: str
    sampler: str = "ddim"

    def bytes(self) -> int:
        """Of weights on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))

    def largest(self) -> Path:
        return max(self.folder.rglob("*.safetensors"), key=lambda path: path.stat().st_size)


def default() -> Checkpoint:
    return Checkpoint("emoji", paths.MODEL, build.digest())


def random(name: str) -> Checkpoint:
    place, script, told, last = RECIPES[name]
    folder = paths.CACHE / "bench" / place
    if not (folder / last).exists():
        with step("weights", str(folder)):
            subprocess.run([peers.python(), HERE / script, folder, *told, paths.MODEL / "tokenizer"], check=True)
    return Checkpoint(name, folder, build.digest(folder), SAMPLERS.get(name, "ddim"))
