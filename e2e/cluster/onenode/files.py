"""Owns writing a file whole, privately, and only when its content changes: programs that watch their configuration are not disturbed.
It must not know what a file says."""

import os
from pathlib import Path


def write(path: Path, text: str) -> bool:
    """True if the file is new or has changed."""
    if path.exists() and path.read_text() == text:
        return False
    unfinished = path.with_name(f".{path.name}.new")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    unfinished.rename(path)
    return True
