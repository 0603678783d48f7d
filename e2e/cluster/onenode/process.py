"""Owns long-running programs: starting them detached, recognising them later, stopping exactly those.
It must not know what the programs are for; a process counts as ours only while its start time and boot match its record."""

import hashlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from . import settings
from .progress import Failure, say, wait_until


@dataclass(frozen=True)
class Component:
    """A program that must run, and how to tell that it serves."""

    name: str
    argv: tuple[str, ...]
    healthy: Callable[[], bool]
    # Files whose content the program reads once: a change of theirs restarts it.
    inputs: tuple[Path, ...] = ()
    timeout: float = 60.0
    in_namespace: bool = True

    def command(self) -> list[str]:
        enter = ["nsenter", f"--net={settings.NAMESPACE_PATH}", "--"] if self.in_namespace else []
        return enter + list(self.argv)

    def fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.command()).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot at which `pid` was forked (it survives an exec), or None if it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _record_path(name: str) -> Path:
    return settings.RUN / f"{name}.json"


def running(name: str) -> dict | None:
    """The record of a component that is alive, or None. A reused process id does not pass."""
    try:
        record = json.loads(_record_path(name).read_text())
    except (FileNotFoundError, ValueError):
        return None
    alive = record["boot"] == _boot_id() and record["started"] == _start_time(record["pid"])
    return record if alive else None


def recorded() -> list[str]:
    return sorted(p.stem for p in settings.RUN.glob("*.json"))


def ensure(component: Component) -> bool:
    """Starts the component unless it already runs with the same command and inputs; true if it was started."""
    started = begin(component)
    if started:
        await_healthy(component)
    return started


def begin(component: Component) -> bool:
    """The first half of `ensure`: starts, but does not wait."""
    record = running(component.name)
    fingerprint = component.fingerprint()
    if record and record["fingerprint"] == fingerprint:
        if component.healthy():
            return False
        say(component.name, "runs but does not answer; restarting")
    elif record:
        say(component.name, "its command or configuration has changed; restarting")
    stop(component.name)
    _start(component, fingerprint)
    return True


def await_healthy(component: Component) -> None:
    def answered() -> bool:
        if not running(component.name):
            raise Failure(f"{component.name} ended while starting")
        return component.healthy()

    try:
        wait_until(f"{component.name} is healthy", answered, component.timeout)
    except Failure as failure:
        raise Failure(f"{failure}\n{log_tail(component.name)}") from None
    took = time.time() - _record_path(component.name).stat().st_mtime  # the record is written at the start
    say(component.name, f"healthy ({took:.1f} s)")


def _start(component: Component, fingerprint: str) -> None:
    record, boot = _record_path(component.name), _boot_id()

    def write_own_record() -> None:
        # In the child, before exec: however early `up` is killed, no process is left without a record.
        pid = os.getpid()
        content = {"pid": pid, "started": _start_time(pid), "boot": boot, "fingerprint": fingerprint}
        record.with_suffix(".new").write_text(json.dumps(content))
        record.with_suffix(".new").rename(record)

    with open(settings.LOG / f"{component.name}.log", "ab") as log:
        child = subprocess.Popen(component.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                 start_new_session=True, preexec_fn=write_own_record)
    child.returncode = 0  # detached: nobody here waits for it


def stop(name: str, grace: float = 10.0) -> bool:
    """Ends a recorded component: asks first, then kills; true if it was running."""
    record = running(name)
    if record:
        terminate(record["pid"], lambda: running(name) is not None, grace)
    _record_path(name).unlink(missing_ok=True)
    return record is not None


def terminate(pid: int, still_ours: Callable[[], bool], grace: float) -> None:
    """Signals through a descriptor of the process: it cannot reach another one that got the same id meanwhile."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            if not still_ours():
                return
            signal.pidfd_send_signal(descriptor, number)
            deadline = time.monotonic() + patience
            while still_ours() and time.monotonic() < deadline:
                time.sleep(0.02)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def log_tail(name: str, lines: int = 15) -> str:
    path = settings.LOG / f"{name}.log"
    text = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(f"    {line[:400]}" for line in text[-lines:]) + f"\n    (log: {path})"
