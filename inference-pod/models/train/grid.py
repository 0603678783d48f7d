"""Draws a grid of an exported model's pictures, each with its prompt below."""

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

CELL, LABEL, COLUMNS = 96, 14, 8
CHOSEN = ("pizza", "red heart", "crying face", "fire", "cat face", "car", "dog face", "sun", "tree", "house", "red apple",
          "banana", "rose", "smiling face", "angry face", "rocket", "airplane", "guitar", "soccer ball", "snowman",
          "fish", "ghost", "star", "crown", "a hamburger emoji", "a picture of a rainbow", "coffee", "key", "umbrella",
          "panda", "a cake", "bus")


def every_nth(work: Path, count: int) -> list[str]:
    names = [m["name"] for m in json.loads((work / "meta.json").read_text()) if m["learned"]]
    return [names[i * len(names) // count] for i in range(count)]


def draw(model: Path, prompts: list[str], steps: int, guidance: float, seed: int) -> list[Image.Image]:
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return pipeline(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images


def paste(pictures: list[Image.Image], prompts: list[str]) -> Image.Image:
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL + 4), rows * (CELL + LABEL + 4)), (225, 225, 225))
    pen = ImageDraw.Draw(sheet)
    for i, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        x, y = i % COLUMNS * (CELL + 4) + 2, i // COLUMNS * (CELL + LABEL + 4) + 2
        sheet.paste(picture.resize((CELL, CELL), Image.LANCZOS), (x, y))
        pen.text((x, y + CELL), prompt[:17], fill=(0, 0, 0))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", type=int, help="instead of the chosen prompts, so many names taken every n-th")
    parser.add_argument("--work", type=Path, help="for --names: the folder with meta.json")
    parser.add_argument("--prompts", nargs="+", help="instead of the chosen prompts, these")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    prompts = args.prompts or (every_nth(args.work, args.names) if args.names else list(CHOSEN))
    paste(draw(args.model, prompts, args.steps, args.guidance, args.seed), prompts).quantize(192).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
