"""Owns adapters with random weights, small ones that change a picture visibly: for soaks, where nobody looks at it.
It must not know pods. Writes safetensors by hand, so that no library has to be installed."""

import hashlib
import json
import random
import struct
from pathlib import Path

RANK = 2
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def write(folder: Path, base: Path, seed: int) -> str:
    """Makes `folder` an adapter of the checkpoint in `base`; returns its digest."""
    chance, tensors = random.Random(seed), {}
    for key, (rows, columns) in _attention(base / WEIGHTS).items():
        path = f"unet.{key.removesuffix('.weight')}"
        tensors[f"{path}.lora_A.weight"] = (RANK, columns, [chance.gauss(0, 0.3) for _ in range(RANK * columns)])
        tensors[f"{path}.lora_B.weight"] = (rows, RANK, [chance.gauss(0, 0.3) for _ in range(rows * RANK)])
    folder.mkdir(parents=True)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(_safetensors(tensors))
    return digest(folder)


def digest(folder: Path) -> str:
    """What pins a folder: the digest of its files' `sha256sum` listing."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    listing = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()


def _attention(weights: Path) -> dict[str, list[int]]:
    """Shapes of the queries' weights of a UNet."""
    with weights.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {key: entry["shape"] for key, entry in header.items() if key.endswith(".to_q.weight")}


def _safetensors(tensors: dict[str, tuple[int, int, list[float]]]) -> bytes:
    header, data = {}, b""
    for name, (rows, columns, values) in sorted(tensors.items()):
        bytes_ = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
