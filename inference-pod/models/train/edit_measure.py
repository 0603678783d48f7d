"""Measures an exported editing model: of all variants of the edited picture, is the result nearest to the right one?

Variants are the same person or thing in the other style, skin colours and gender; distances are between latents. Doing
nothing scores 0. Pairs that were trained on and held-out ones are counted apart, by kind of edit.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import edit_pairs
from edit_grid import Edit, Editor, spread


def every_edit(pairs: edit_pairs.Pairs, kind: str) -> list[Edit]:
    found = []
    for i in dict.fromkeys(pairs.rows[kind]):
        if kind == "tone":
            found += [Edit(i, pairs.at(i, tone=t), f"make it {edit_pairs.TONES[t]} skin") for t in pairs.tones(i)]
        elif kind == "gender":
            found += [Edit(i, pairs.at(i, gender=g), f"as a {g}") for g in pairs.genders(i)]
        else:
            ask = {"3d": "in 3D style", "flat": "as a flat drawing"}[kind]
            found.append(Edit(i, pairs.at(i, style=kind), ask))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=96, help="edits of each kind, spread over all")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--image-guidance", type=float, default=1.0)
    args = parser.parse_args()
    editor = Editor(args.model, args.steps, args.guidance, args.image_guidance)
    meta = edit_pairs.load_meta(args.work)
    pictures = np.load(args.work / "edit_pictures.npy")
    latents = torch.load(args.work / "edit_latents.pt", weights_only=True)[0]  # not the mirrored ones
    family = defaultdict(list)
    for i, m in enumerate(meta):
        family[m["family"]].append(i)
    for held_out in (False, True):
        pairs = edit_pairs.Pairs(meta, held_out)
        for kind in ("tone", "gender", "3d", "flat"):
            edits = every_edit(pairs, kind)
            edits = spread(edits, min(args.count, len(edits)))
            sources = [Image.fromarray(pictures[e.source]) for e in edits]
            drawn = editor(sources, [e.instruction for e in edits], output_type="latent")
            right = 0
            for e, result in zip(edits, drawn, strict=True):
                variants = family[meta[e.source]["family"]]
                nearest = (latents[variants] - result).square().sum((1, 2, 3)).argmin()
                right += variants[nearest] == e.target
            print(f"{'held out' if held_out else 'trained on'} {kind}: {right} of {len(edits)}", flush=True)


if __name__ == "__main__":
    main()
