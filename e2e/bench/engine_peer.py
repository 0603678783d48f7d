"""Draws with diffusers as `draw` of `inference-pod/examples` does with ours: one line of JSON in, one out.
Run by the peers' interpreter: `engine_peer.py FOLDER f32|bf16 THREADS`. It must not compare."""

import json
import sys
import time
from pathlib import Path

import numpy
import torch
from diffusers import DiffusionPipeline


def main(folder: str, dtype: str, threads: int) -> None:
    torch.set_num_threads(threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    # diffusers does not take the checkpoint's word that these are absent.
    is_sd3 = json.loads((Path(folder) / "model_index.json").read_text())["_class_name"] == "StableDiffusion3Pipeline"
    absent = {name: None for name in ("text_encoder_3", "tokenizer_3") if is_sd3}
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=kind, **absent)
    pipeline.set_progress_bar_config(disable=True)
    parts = Parts(pipeline)
    print(json.dumps({"weight_bytes": 0}), flush=True)
    for line in sys.stdin:
        print(json.dumps(draw(pipeline, parts, json.loads(line))), flush=True)


class Parts:
    """Takes the time of the pipeline's own calls, which it leaves as they are."""

    def __init__(self, pipeline):
        self.seconds = {}
        self._wrap(pipeline, "encode_prompt", "encode")
        self._wrap(pipeline.vae, "decode", "decode")

    def _wrap(self, owner, name: str, part: str) -> None:
        call = getattr(owner, name)

        def timed(*positional, **named):
            began = time.perf_counter()
            result = call(*positional, **named)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
            return result

        setattr(owner, name, timed)


def draw(pipeline, parts: Parts, asked: dict) -> dict:
    width, height = map(int, asked["size"].split("x"))
    parts.seconds = {}
    began = time.perf_counter()
    pictures = pipeline(asked["prompts"], negative_prompt=[""] * len(asked["prompts"]), width=width, height=height,
                        num_inference_steps=asked["steps"], guidance_scale=asked["guidance"], output_type="pil",
                        generator=[torch.Generator().manual_seed(seed) for seed in range(len(asked["prompts"]))]).images
    seconds = time.perf_counter() - began
    if asked.get("save"):
        with open(asked["save"], "wb") as out:
            for picture in pictures:
                out.write(numpy.asarray(picture).tobytes())
    return {"seconds": seconds, **parts.seconds, "steps": seconds - sum(parts.seconds.values())}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
