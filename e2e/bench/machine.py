"""Owns what a benchmark asks of the machine: forgetting cached pages, running a loader, and raw rates.
It must not know checkpoints or contenders."""

import ctypes
import json
import os
import re
import subprocess
import time
from pathlib import Path

from onenode.progress import Failure
from stores import credentials


def forget(*paths: Path) -> None:
    """These files are on the disk and not in the page cache; nobody else's are touched."""
    for path in paths:
        with open(path, "rb") as content:
            os.fsync(content.fileno())
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def told(command: list) -> dict:
    """What a loader says of itself on its last line: seconds, resident bytes before and at most."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def download(url: str) -> float:
    """Bytes a second of one connection whose bytes go nowhere. The password is on curl's input, not among its arguments."""
    known = credentials.read()
    done = subprocess.run(["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{speed_download}", "--config", "-", url],
                          input=f'user = "{known.username}:{known.password}"\n', capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"curl {url} failed: {done.stderr}")
    return float(done.stdout)


def write(path: Path, size: int) -> float:
    block, began = bytes(8 << 20), time.monotonic()
    with open(path, "wb") as out:
        for _ in range(size // len(block)):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    path.unlink()
    return size / (time.monotonic() - began)


def memcpy(size: int) -> float:
    """Into fresh memory, as a loader's is: the kernel's clearing of pages is part of it. The best of three."""
    source = ctypes.create_string_buffer(size)
    ctypes.memset(source, 1, size)
    best = 0.0
    for _ in range(3):
        began = time.monotonic()
        target = ctypes.create_string_buffer(size)
        ctypes.memmove(target, source, size)
        best = max(best, size / (time.monotonic() - began))
    return best


def cores() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} × {found[1] if found else 'unknown'}"
