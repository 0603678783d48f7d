"""Owns the kernel settings that the kubelet changes for the whole machine: remembered before `up`, put back by `down`.
It must not know any other setting; those of the network live and die with the namespace."""

import json
from pathlib import Path

from . import settings

CHANGED_BY_KUBELET = ("vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops",
                      "kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes")
_SAVED = settings.STATE / "kernel-settings.json"


def _path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def remember() -> None:
    if not _SAVED.exists():
        values = {name: _path(name).read_text().strip() for name in CHANGED_BY_KUBELET if _path(name).exists()}
        _SAVED.write_text(json.dumps(values))


def restore() -> None:
    if not _SAVED.exists():
        return
    for name, value in json.loads(_SAVED.read_text()).items():
        if _path(name).read_text().strip() != value:
            _path(name).write_text(value)
    _SAVED.unlink()
