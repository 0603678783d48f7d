"""Fetches the pictures of the editing model in two styles and six skin colours, and names what belongs together.

Writes `edit_pictures.npy` (uint8, 64x64 RGB on white) and `edit_meta.json`: for each picture its style, family (what
it shows, whoever it shows), gender, tone, name, and whether its family is held out: every 12th family gives no pair to
the training of the editing model, and no picture to that of its autoencoder. Knows nothing of the models.
"""

import argparse
import json
import re
import tarfile
from pathlib import Path

import numpy as np

from data import PACKAGES, fetch, learned, on_white, read_names, read_pngs, read_selection

FLUENT = {"@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"}
HELD_OUT_EVERY = 12
WHO = re.compile(r"\b(man|woman|person|men|women|people)\b ?")
GENDERS = {"man": "man", "men": "man", "woman": "woman", "women": "woman"}
PEOPLE = 1  # emojibase's group
# Two people or more: which of them is meant? And men’s room is a sign.
SEVERAL = re.compile(r"^(kiss|couple|family|people|men|women)\b|^men’s|^women’s|pregnant|handshake")
MIRRORED = "facing right"  # a second picture of the same
# Pairs whose names do not tell.
CALLED = {"boy": ("child", "man"), "girl": ("child", "woman"), "prince": ("royal", "man"), "princess": ("royal", "woman"),
          "person with crown": ("royal", ""), "Santa Claus": ("claus", "man"), "Mrs. Claus": ("claus", "woman"),
          "Mx Claus": ("claus", ""), "merman": ("merperson", "man"), "mermaid": ("merperson", "woman"),
          "old man": ("older", "man"), "old woman": ("older", "woman"), "older person": ("older", "")}


def read_fluent(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {Path(m.name).stem.replace("-fe0f", ""): tar.extractfile(m).read() for m in tar if m.name.endswith(".webp")}


def family_of(label: str) -> tuple[str, str]:
    """What is shown, and "man", "woman" or "" for whoever shows it."""
    if label in CALLED:
        return CALLED[label]
    found = WHO.search(label)
    if not found or SEVERAL.search(label):
        return label, ""
    return WHO.sub("", label, count=1).strip() or "adult", GENDERS.get(found[1], "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and checkpoints")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    flat_tgz, names_tgz, solid_tgz = (fetch(work, *package) for package in (PACKAGES | FLUENT).items())
    styles = {"flat": read_pngs(flat_tgz), "3d": read_fluent(solid_tgz)}
    chosen = read_selection(Path(__file__).with_name("selection.txt"))
    entries = [e for e in read_names(names_tgz) if e.get("group") not in (None, 2) and MIRRORED not in e["label"]]
    families = list(dict.fromkeys(family_of(e["label"])[0] for e in entries))
    held_out = set(families[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    pictures, meta = [], []
    for entry in entries:
        family, gender = family_of(entry["label"])
        shared = {"family": family, "gender": gender, "held_out": family in held_out, "name": entry["label"].lower(),
                  "popular": entry["label"] in chosen, "learned": learned(entry, chosen),
                  "people": entry["group"] == PEOPLE}
        for shown in [entry, *(s for s in entry.get("skins") or [] if isinstance(s["tone"], int))]:
            code = shown["hexcode"].lower().replace("-fe0f", "")
            for style, files in styles.items():
                if code in files:
                    pictures.append(on_white(files[code]))
                    meta.append(shared | {"style": style, "tone": shown.get("tone", 0)})
    np.save(work / "edit_pictures.npy", np.stack(pictures))
    (work / "edit_meta.json").write_text(json.dumps(meta))
    print(f"{len(meta)} pictures of {len(families)} families, {len(held_out)} of them held out")


if __name__ == "__main__":
    main()
