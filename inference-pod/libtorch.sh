#!/usr/bin/env bash
# Makes a libtorch that links and loads on a machine without a GPU, from the Python wheels (about 540 MB down, 500 MB kept).
# Usage: libtorch.sh DEST. Does nothing when DEST already holds this version; correct when killed half-way.
set -euo pipefail

dest=${1:?usage: libtorch.sh DEST}
version=2.11.0        # what tch =0.24.0 binds; GPU machines carry the same Python torch
cuda_runtime=13.0.96  # libcudart.so.13 and libcupti.so.13 are needed to load even where no GPU is
cuda_cupti=13.0.85

if [ "$(cat "$dest/build-version" 2>/dev/null)" = "$version" ]; then
  echo "libtorch $version is already at $dest"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "$@"; }
echo "fetching libtorch $version"
fetch --python-version 3.12 --implementation cp --abi cp312 --platform manylinux_2_28_x86_64 "torch==$version"
fetch "nvidia-cuda-runtime==$cuda_runtime" "nvidia-cuda-cupti==$cuda_cupti"

rm -rf "$dest.part"
mkdir -p "$dest.part/lib"
python3 - "$work" "$dest.part" <<'PY'
import glob, os, shutil, sys, zipfile

source, dest = sys.argv[1:]
LIBRARIES = {"libtorch_cpu.so", "libtorch.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}

def place(member):
    """Where a wheel's member goes, or None for what is not needed."""
    name = os.path.basename(member)
    if name in LIBRARIES:
        return f"lib/{name}"
    if member.startswith("torch/include/") and name:
        return member.removeprefix("torch/")
    if ".dist-info/" in member and name in ("LICENSE", "NOTICE", "License.txt"):
        return "licenses/" + member.replace("/", "_")
    return None

for wheel in glob.glob(source + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            path = place(member)
            if path is None:
                continue
            path = os.path.join(dest, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(member) as read, open(path, "wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
PY
echo "$version" > "$dest.part/build-version" # torch-sys checks it; without the file the check is skipped
rm -rf "$dest"
mv "$dest.part" "$dest"
echo "libtorch $version is at $dest ($(du -sh "$dest" | cut -f1))"
