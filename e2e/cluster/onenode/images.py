"""Owns the images inside the node's containerd: importing an archive, and skipping the import of what is already there.
It must not know how an archive is made, except for the pause image that every pod needs."""

import sys
from pathlib import Path

from . import node, settings
from .build import binary
from .progress import Failure, say, step, wait_until

sys.path.insert(0, str(settings.HERE))
import oci_image  # noqa: E402


def present() -> dict[str, str]:
    """Name -> digest of every image that the kubelet may use."""
    rows = (line.split() for line in node.ctr("images", "list").splitlines()[1:])
    return {row[0]: row[2] for row in rows if "io.cri-containerd.image=managed" in row[-1]}


def load(archive: Path, quiet: bool = False) -> bool:
    """Imports an archive unless the same image is there; true if it was imported."""
    found = oci_image.archive_digest(archive)
    if not found:
        raise Failure(f"{archive} is not an OCI archive with one named image")
    name, digest = found
    if present().get(name) == digest:
        if not quiet:
            say(name, "already imported")
        return False
    with step(name, f"imported, {archive.stat().st_size / 1e6:.1f} MB"):
        node.ctr("images", "import", archive)
        wait_until(f"the kubelet's view of {name}", lambda: present().get(name) == digest, 10)
    return True


def pause_archive() -> Path:
    program = oci_image.Layer("pause", (oci_image.File(binary("pause"), "/pause"),))
    image = oci_image.Image(node.PAUSE_IMAGE, ("/pause",), (program,))
    return oci_image.build(image, settings.VAR / "images" / "pause.tar", settings.CACHE / "layers").archive
