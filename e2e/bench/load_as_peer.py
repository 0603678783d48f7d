"""Owns loading a checkpoint's folder into memory the way each peer does, timed without imports, until every page is there.
Run by the peers' interpreter: `load_as_peer.py PEER FOLDER`; prints one line of JSON. It must not know Easel."""

import json
import re
import sys
import time
from pathlib import Path

import torch


def diffusers(folder: Path):
    from diffusers import StableDiffusionPipeline

    def load():
        pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32, local_files_only=True)
        modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        return pipeline, [tensor for module in modules for tensor in module.state_dict().values()]
    return load


def runai(folder: Path):
    from runai_model_streamer import SafetensorsStreamer

    def load():
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(weights(folder))
            held = dict(streamer.get_tensors())
        return streamer, list(held.values())
    return load


def fastsafetensors(folder: Path):
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def load():
        loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
        loader.add_filenames({0: weights(folder)})
        buffer = loader.copy_files_to_device()
        return (loader, buffer), [buffer.get_tensor(name) for name in buffer.key_to_rank_lidx]
    return load


PEERS = {"diffusers": diffusers, "runai": runai, "fastsafetensors": fastsafetensors}


def weights(folder: Path) -> list[str]:
    return sorted(map(str, folder.rglob("*.safetensors")))


def touch(tensors: list) -> int:
    """Reads a byte of every page: a file that is only mapped is not loaded."""
    return sum(int(tensor.contiguous().view(torch.uint8).flatten()[::4096].sum()) for tensor in tensors if tensor.numel())


def memory(field: str) -> int:
    """Bytes that the kernel tells of this process."""
    return 1024 * int(re.search(rf"^{field}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def main(peer: str, folder: Path) -> None:
    torch.set_grad_enabled(False)
    load = PEERS[peer](folder)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    began = time.monotonic()
    _owner, tensors = load()
    returned = time.monotonic() - began
    touch(tensors)
    seconds, loaded = time.monotonic() - began, sum(tensor.nbytes for tensor in tensors)
    print(json.dumps({"seconds": seconds, "returned": returned, "before": before, "peak": memory("VmHWM"), "loaded": loaded}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
