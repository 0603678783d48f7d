"""Owns the parent cgroup of all pods, in whatever hierarchies the machine has: making it, ending what runs in it, removing it.
It must not know what a pod is."""

import os
import signal
import time
from pathlib import Path

from . import settings

ROOT = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """The one v2 hierarchy, or each v1 controller's (a hybrid's v2 folder holds no controllers, and runc leaves it alone)."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return sorted(p for p in ROOT.iterdir() if p.is_dir() and not p.is_symlink() and (p / "cgroup.procs").exists())


def _parents() -> list[Path]:
    return [h / settings.CGROUP for h in _hierarchies() if (h / settings.CGROUP).is_dir()]


def create() -> None:
    for hierarchy in _hierarchies():
        parent = hierarchy / settings.CGROUP
        parent.mkdir(exist_ok=True)
        # In v1 a new cpuset is empty, and nothing can run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (parent / name).exists() and not (parent / name).read_text().strip():
                (parent / name).write_text((hierarchy / name).read_text())


def _processes() -> set[int]:
    found: set[int] = set()
    for parent in _parents():
        for path in parent.rglob("cgroup.procs"):
            try:
                found.update(int(line) for line in path.read_text().split())
            except (FileNotFoundError, OSError):
                pass  # removed meanwhile
    return found - {0}


def kill_all(timeout: float = 10.0) -> int:
    """Kills every process of every pod: only containers live below the parent. Returns how many there were."""
    first = _processes()
    deadline = time.monotonic() + timeout
    while (left := _processes()) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    return len(first)


def remove() -> None:
    for parent in _parents():
        for folder in sorted((p for p in parent.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            _remove_one(folder)
        _remove_one(parent)


def _remove_one(folder: Path) -> None:
    for _ in range(20):  # busy for a moment after its last process has ended
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


def left() -> list[str]:
    return [str(p) for p in _parents()]
