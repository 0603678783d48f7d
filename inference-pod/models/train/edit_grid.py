"""Draws a grid of an exported editing model's work: pictures whose pairs it was trained on, then held-out ones.

With --truth the cells show what the edit should look like instead.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image, ImageDraw

import edit_pairs

CELL, LABEL, ROWS, BATCH = 64, 14, 10, 32
PEOPLE = (("make it light skin", {"tone": 1}), ("make it medium skin", {"tone": 3}), ("make it dark skin", {"tone": 5}),
          ("as a woman", {"gender": "woman"}), ("as a man", {"gender": "man"}), ("in 3D style", {"style": "3d"}))
THINGS = (("flat", (("in 3D style", {"style": "3d"}),)), ("3d", (("as a flat drawing", {"style": "flat"}),)))


@dataclass
class Edit:
    source: int
    target: int
    instruction: str


def spread(rows: list[int], count: int) -> list[int]:
    return [rows[i * len(rows) // count] for i in range(count)]


def choose(pairs: edit_pairs.Pairs, held_out: bool) -> list[list[int | Edit | None]]:
    """The grid's cells, row by row: pictures as they are, and edits of them."""
    meta = pairs.meta

    def first_of_families(rows: list[int]) -> list[int]:
        return list({meta[i]["family"]: i for i in reversed(rows)}.values())[::-1]

    def edits(i: int, asks) -> list[int | Edit | None]:
        targets = [(ask, pairs.at(i, **changes)) for ask, changes in asks]
        return [i, *(None if target is None else Edit(i, target, ask) for ask, target in targets)]

    rows = [i for i, m in enumerate(meta) if m["held_out"] == held_out]
    plain = [i for i in rows if meta[i]["style"] == "flat" and meta[i]["tone"] == 0]
    # As many with a gender as without, such as hands.
    gendered = first_of_families([i for i in plain if pairs.tones(i) and pairs.genders(i)])
    others = first_of_families([i for i in plain if pairs.tones(i) and not meta[i]["gender"] and not pairs.genders(i)])
    people = [*spread(gendered, ROWS * 6 // 10), *spread(others, ROWS - ROWS * 6 // 10)]
    popular = [i for i in plain if meta[i]["popular"] and not pairs.tones(i)]
    things = spread([i for i in popular if pairs.at(i, style="3d") is not None], ROWS)
    return [[*edits(person, PEOPLE), *edits(thing, THINGS[0][1]), *edits(pairs.at(thing, style="3d"), THINGS[1][1])]
            for person, thing in zip(people, things, strict=True)]


class Editor:
    def __init__(self, model: Path, steps: int, guidance: float, image_guidance: float):
        self.pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.options = {"num_inference_steps": steps, "guidance_scale": guidance, "image_guidance_scale": image_guidance}

    def __call__(self, pictures: list[Image.Image], instructions: list[str], seed: int = 1, **options) -> list:
        drawn = []
        for start in range(0, len(pictures), BATCH):
            part = slice(start, start + BATCH)
            generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(pictures[part]))]
            drawn += list(self.pipeline(instructions[part], image=pictures[part], generator=generators,
                                        **self.options, **options).images)
        return drawn


def sheet(cells: list[list[Image.Image | None]], heads: list[str], sides: list[str]) -> Image.Image:
    left = 12 + max(len(s) for s in sides) * 6
    picture = Image.new("RGB", (left + len(heads) * (CELL + 4), LABEL + len(cells) * (CELL + 4)), (225, 225, 225))
    pen = ImageDraw.Draw(picture)
    for column, head in enumerate(heads):
        pen.text((left + column * (CELL + 4), 1), head[:13], fill=(0, 0, 0), font_size=9)
    for row, (cells_of_row, side) in enumerate(zip(cells, sides, strict=True)):
        pen.text((4, LABEL + row * (CELL + 4) + CELL // 2), side, fill=(0, 0, 0))
        for column, cell in enumerate(cells_of_row):
            if cell:
                picture.paste(cell.resize((CELL, CELL)), (left + column * (CELL + 4), LABEL + row * (CELL + 4)))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--image-guidance", type=float, default=1.0)
    parser.add_argument("--truth", action="store_true")
    args = parser.parse_args()
    pairs = edit_pairs.Pairs(edit_pairs.load_meta(args.work))
    pictures = [Image.fromarray(p) for p in np.load(args.work / "edit_pictures.npy")]
    cells = choose(pairs, False) + choose(pairs, True)
    edits = [cell for row in cells for cell in row if isinstance(cell, Edit)]
    if args.truth:
        drawn = [pictures[e.target] for e in edits]
    else:
        editor = Editor(args.model, args.steps, args.guidance, args.image_guidance)
        drawn = editor([pictures[e.source] for e in edits], [e.instruction for e in edits])
    results = iter(drawn)
    shown = [[pictures[c] if isinstance(c, int) else next(results) if c else None for c in row] for row in cells]
    short = {"make it light skin": "..light skin", "make it medium skin": "..medium skin", "make it dark skin": "..dark skin",
             "as a flat drawing": "as a flat dr.."}
    heads = ["input", *(short.get(ask, ask) for ask, _ in PEOPLE), "input", "in 3D style", "input", "as a flat dr.."]
    sides = ["trained on"] * ROWS + ["held out"] * ROWS
    sheet(shown, heads, sides).quantize(192).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
