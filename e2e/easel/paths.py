"""Owns where things are: the checkout, the cache outside of it, and what is kept in both.
It must not read or write anything."""

import os
import sys
from pathlib import Path

E2E = Path(__file__).resolve().parent.parent
ROOT = E2E.parent
CLUSTER = E2E / "cluster"
MANIFESTS = E2E / "manifests"
CHARTS = ROOT / "charts"
MODEL = ROOT / "inference-pod" / "models" / "emoji"
EDIT_MODEL = MODEL.with_name("emoji-edit")
CUT_OUT = MODEL.with_name("cut-out")
UPSCALE = MODEL.with_name("upscale")
MODELS = (MODEL, EDIT_MODEL, CUT_OUT, UPSCALE)

sys.path.insert(0, str(CLUSTER))  # the cluster's own package, `onenode`

CACHE = Path(os.environ.get("EASEL_CACHE") or Path.home() / ".cache" / "easel").resolve()
LIBTORCH = CACHE / "libtorch-2.11.0"
RUST = "1.95.0"
TARGET = CACHE / f"target-{RUST}"
PYTHON = CACHE / "python"
PICTURES = ROOT / "target" / "pictures"
