"""Fetches the pictures and their names, checks them, and writes them as arrays.

Writes `pictures.npy` (every base emoji, uint8, 64x64 RGB on white) and `meta.json` (name, tags and extra names of
each, whether the diffusion model learns it, and whether it is one of the popular ones). Knows nothing of the models.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
PACKAGES = {
    "emoji-datasource-google@16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}

# Of emojibase's groups those whose pictures differ as a whole: smileys, animals, food, travel, activities, objects.
# People in all their variants, flags, and letters in boxes stay out, except for what selection.txt names.
LEARNED_GROUPS = (0, 3, 4, 5, 6, 7)
NOT_LEARNED = re.compile(r"o’clock|-thirty|facing right|Japanese|face with symbols|moon face")


def fetch(work: Path, package: str, sha256: str) -> Path:
    """Packs one npm package into `work` unless it is there, and refuses any other bytes than those pinned."""
    name, version = package.rsplit("@", 1)
    path = work / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", package, "--silent"], cwd=work, check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path.name}: SHA-256 is {found}, pinned is {sha256}")
    return path


def read_selection(path: Path) -> dict[str, list[str]]:
    """Maps each chosen name to the extra names given after "="."""
    chosen = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, *extra = (part.strip() for part in line.split("="))
            chosen[name] = extra
    return chosen


def on_white(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    ground.alpha_composite(picture)
    rgb = ground.convert("RGB")
    return np.asarray(rgb if rgb.size == (SIDE, SIDE) else rgb.resize((SIDE, SIDE), Image.LANCZOS))


def read_pngs(archive: Path) -> dict[str, bytes]:
    """The 64x64 pictures, by code points as emojibase writes them but without the variation selector."""
    pngs = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if "/img/google/64/" in member.name and member.name.endswith(".png"):
                code = Path(member.name).stem.replace("-fe0f", "")
                pngs[code] = tar.extractfile(member).read()
    return pngs


def read_names(archive: Path) -> list[dict]:
    with tarfile.open(archive) as tar:
        return json.load(tar.extractfile("package/en/data.json"))


def learned(entry: dict, chosen: dict[str, list[str]]) -> bool:
    return entry["label"] in chosen or entry["group"] in LEARNED_GROUPS and not NOT_LEARNED.search(entry["label"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and checkpoints")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    pictures_tgz, names_tgz = (fetch(work, package, sha256) for package, sha256 in PACKAGES.items())
    chosen = read_selection(Path(__file__).with_name("selection.txt"))
    pngs, pictures, meta = read_pngs(pictures_tgz), [], []
    for entry in read_names(names_tgz):
        png = pngs.get(entry["hexcode"].lower().replace("-fe0f", ""))
        if png is None or entry.get("group") in (None, 2):  # lone letters and skin tones are no pictures
            continue
        label = entry["label"]
        pictures.append(on_white(png))
        meta.append({
            "name": label.lower(),
            "tags": [tag.lower() for tag in entry.get("tags") or []],
            "extra": [extra.lower() for extra in chosen.get(label, [])],
            "popular": label in chosen,
            "learned": learned(entry, chosen),
        })
    missing = set(chosen) - {e["label"] for e in read_names(names_tgz)}
    if missing:
        raise SystemExit(f"selection.txt names unknown emoji: {sorted(missing)}")
    np.save(work / "pictures.npy", np.stack(pictures))
    (work / "meta.json").write_text(json.dumps(meta))
    print(f"{len(meta)} pictures; {sum(m['learned'] for m in meta)} learned by the diffusion model, "
          f"{sum(m['popular'] for m in meta)} of them popular")


if __name__ == "__main__":
    main()
