#!/usr/bin/env python3
"""Owns `make bench-pod`: what a pod promises of cancelled requests, of loads beside a running batch and of memory, measured on a
real pod without a cluster. It must not know how each is measured."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import cancelled, checkpoints, loading, machine, resident, table  # noqa: E402
from bench.observed_pod import ObservedPod  # noqa: E402
from easel import build, paths, toolchain  # noqa: E402
from onenode.progress import Failure, say  # noqa: E402

RESULTS = paths.ROOT / "target" / "bench" / "pod.json"
#: As the inference image has them.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
#: What is drawn while `half-sd`, of a gigabyte, is loaded: checkpoint, size, pictures in a batch.
BATCHES = {"default model, 64², batch of 4": ("emoji", "64x64", 4), "UNet of 90 M, 64²": ("unet", "64x64", 1),
           "UNet of 90 M, 256²": ("unet", "256x256", 1)}
PARTS = ("cancel", "load", "memory")


def main() -> None:
    options = arguments()
    toolchain.ensure()
    binary = options.pod or build.inference()
    known = {"emoji": checkpoints.default(), **{name: checkpoints.random(name) for name in checkpoints.RECIPES}}
    found = {}
    if "cancel" in options.parts:
        with pod(binary) as measured:
            found["cancel"] = cancelled.measure(measured, known["unet"], options.cancels, options.seed)
    if "load" in options.parts:
        found["load"] = {}
        for title, (name, size, pictures) in BATCHES.items():
            with pod(binary, f"--max-batch={pictures}") as measured:
                found["load"][title] = loading.measure(measured, known[name], known["half-sd"], size, pictures, options.rounds)
            say("load", f"{title}: {growth(found['load'][title], 'loading', 'mean')}")
    if "memory" in options.parts:
        with pod(binary) as measured:
            found["memory"] = resident.measure(measured, known["emoji"], [known[name] for name in ("unet", "half-sd", "dit")])
    report(found, known["half-sd"].bytes(), options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure cancellation, loads beside a batch, and memory of a pod.")
    parser.add_argument("--rounds", type=int, default=5, help="of loads beside each batch")
    parser.add_argument("--cancels", type=int, default=20, help="of each way")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pod", type=Path, help="the binary easel-inference, when it is built already")
    return parser.parse_args()


@contextmanager
def pod(binary: Path, *flags: str):
    """Computes with one thread, so that another core is the loader's."""
    with tempfile.TemporaryDirectory() as folder:
        measured = ObservedPod(binary, Path(folder), {**os.environ, **ENVIRONMENT}, "--threads=1", *flags)
        try:
            yield measured
        finally:
            measured.close()


def growth(rounds: list[dict], of: str, what: str) -> str:
    """Of the steps in an interval beside those of the same round's two quiet ones."""
    grown = [100 * (one[of][what] / ((one["quiet"][what] + one["quiet again"][what]) / 2) - 1) for one in rounds]
    return f"{table.median(grown):+.1f} % ({min(grown):+.1f}–{max(grown):+.1f})"


def report(found: dict, loaded_bytes: int, options: argparse.Namespace) -> None:
    print(f"\n{machine.cores()}, 1 thread, {time.strftime('%d %B %Y')}\n")
    rows = []
    for way in cancelled.WAYS if "cancel" in found else ():
        rows.append(cancel_row(way, [one for one in found["cancel"] if one["way"] == way]))
    for title, rounds in found.get("load", {}).items():
        rows.append(load_row(title, rounds))
    if "memory" in found:
        rows += memory_rows(found["memory"])
    print(table.markdown(("measure", "aim", "found", "beside"), rows))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "cores": machine.cores(), "machine": platform.machine(), "command": sys.argv[1:],
                                   "loaded_bytes": loaded_bytes, "found": found}, indent=1))
    say("results", str(RESULTS))


def cancel_row(way: str, tries: list[dict]) -> tuple[str, ...]:
    sure = [one["most"] for one in tries if one["most"] == one["least"]]
    waits = [one["seconds_to_stop"] / one["step_seconds"] for one in tries]
    return (f"steps after a cancel by {way}", "≤ 1", f"{max(sure, default=0)} at most in {len(sure)} tries, {sum(sure) / max(len(sure), 1):.2f} in the mean",
            f"stopped after {table.spread(waits, 'steps')}; in {len(tries) - len(sure)} more tries a step ended between the two looks, "
            f"{max((one['most'] for one in tries), default=0)} at most")


def load_row(title: str, rounds: list[dict]) -> tuple[str, ...]:
    quiet = [1000 * one["quiet"]["mean"] for one in rounds]
    seconds = [one["loading"]["seconds"] for one in rounds]
    return (f"step beside a load of 1 GB; {title}", "≤ +10 %", f"{growth(rounds, 'loading', 'mean')}, median step {growth(rounds, 'loading', 'median')}",
            f"{table.spread(quiet, 'ms')} a step when quiet, {table.spread(seconds)} a load; beside a process that hashes the same file "
            f"{growth(rounds, 'other process', 'mean')}")


def memory_rows(found: dict) -> list[tuple[str, ...]]:
    rows = []
    for one in found["checkpoints"]:
        more = 100 * (one["grown"] / one["weights"] - 1)
        rows.append((f"memory of {one['name']} beyond its weights", "≤ 10 %", f"{more:+.1f} %", f"{one['grown'] / 1e6:.0f} MB for {one['weights'] / 1e6:.0f} MB"))
    weights = sum(one["weights"] for one in found["checkpoints"])
    drawn = 100 * ((found["after_drawing"] - found["base"]) / weights - 1)
    rows.append(("the same for all of them, after each has drawn 256²", "≤ 10 %", f"{drawn:+.1f} %", f"{(found['after_drawing'] - found['base']) / 1e6:.0f} MB for {weights / 1e6:.0f} MB"))
    rows.append(("memory that stays when they have left", "", f"{(found['after_leaving'] - found['base']) / 1e6:+.0f} MB", f"of {found['base'] / 1e6:.0f} MB with the default model alone"))
    return rows


if __name__ == "__main__":
    try:
        main()
    except (Failure, AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")
