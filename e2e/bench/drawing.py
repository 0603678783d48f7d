"""Owns pictures of diffusers in batches, as a server hands them over. It must not know which server."""

import io
import threading
from collections import defaultdict

import torch
from diffusers import DiffusionPipeline

MAX_BATCH = 8
WAIT_SECONDS = 0.02


class Drawing:
    """diffusers draws pictures of one size and one number of steps together, so a batch is drawn in groups of such."""

    def __init__(self, folder: str, threads: int):
        torch.set_num_threads(threads)
        self.pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.lock = threading.Lock()

    def draw(self, asked: list[dict]) -> list[bytes]:
        groups, pictures = defaultdict(list), [b""] * len(asked)
        for index, one in enumerate(asked):
            groups[one["size"], one["steps"]].append(index)
        with self.lock:
            for (size, steps), indices in groups.items():
                width, height = map(int, size.split("x"))
                drawn = self.pipeline([asked[index]["prompt"] for index in indices], width=width, height=height, num_inference_steps=steps,
                                      guidance_scale=3.0, generator=[torch.Generator().manual_seed(asked[index]["seed"]) for index in indices]).images
                for index, picture in zip(indices, drawn):
                    file = io.BytesIO()
                    picture.save(file, "PNG")
                    pictures[index] = file.getvalue()
        return pictures
