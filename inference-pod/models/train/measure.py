"""Measures an exported model: how often is the drawn picture nearest, of all learned ones, to the one that was asked for?

Distances are between latents. The model is meant to know its pictures by heart, so this is a fair number; it says
nothing about prompts that name no learned picture.
"""

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

import captions

BATCH = 64


def hits(pipeline, prompts: list[str], steps: int, guidance: float, latents: torch.Tensor, rows: list[int]) -> list[bool]:
    found = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        drawn = pipeline(part, num_inference_steps=steps, guidance_scale=guidance, generator=generators,
                         output_type="latent").images
        nearest = torch.cdist(drawn.flatten(1), latents.flatten(1)).argmin(1)
        found += (nearest == torch.tensor(rows[start : start + BATCH])).tolist()
    return found


def share(found: list[bool]) -> str:
    return f"{sum(found)} of {len(found)} ({100 * sum(found) / len(found):.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="ask for every n-th name only")
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    args = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    draws = captions.Captions(captions.load_meta(args.work))
    latents = torch.load(args.work / "latents.pt", weights_only=True)
    rows = list(range(0, len(draws), args.every))
    for steps in args.steps:
        for guidance in args.guidance:
            found = hits(pipeline, [draws.names[i] for i in rows], steps, guidance, latents, rows)
            popular = [hit for hit, i in zip(found, rows, strict=True) if draws.popular[i]]
            print(f"steps {steps} guidance {guidance}: {share(found)}; popular {share(popular)}", flush=True)


if __name__ == "__main__":
    main()
