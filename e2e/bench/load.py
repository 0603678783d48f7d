#!/usr/bin/env python3
"""Owns `make bench-load`: pull, verify and load 1 GB from the registry in the cluster, by Easel and by its peers, in turns.
It must not know how anybody does it; a contender is two commands."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import machine, peers, table  # noqa: E402
from easel import build, paths, toolchain  # noqa: E402
from easel.kube import Cluster  # noqa: E402
from onenode import up  # noqa: E402
from onenode.build import binary  # noqa: E402
from onenode.progress import Failure, say, step  # noqa: E402
from stores import credentials, lifecycle, places, registry  # noqa: E402

REPOSITORY = "bench/half-sd"
RESULTS = paths.ROOT / "target" / "bench" / "load.json"
HERE = Path(__file__).resolve().parent
OURS = "easel"
PEERS = {"diffusers": "`oras pull` + diffusers `from_pretrained`", "runai": "`oras pull` + runai-model-streamer",
         "fastsafetensors": "`oras pull` + fastsafetensors (nogds)"}
TITLES = {OURS: "**Easel**", **PEERS}


@dataclass
class Artifact:
    folder: Path
    digest: str
    listing: str  # digest of the folder's listing, which pins it once it lies on a disk
    bytes: int

    def layers(self) -> list[Path]:
        return [registry.blob(layer["digest"]) for layer in registry.manifest(self.digest)["layers"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure pull, verify and load of 1 GB beside peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=Path, help="folder with `fetch` and `load`, when they are built already")
    options = parser.parse_args()
    toolchain.ensure()
    with up.exclusive():
        up.up()
    lifecycle.ensure(Cluster())
    interpreter = peers.python()
    ours = {name: options.examples / name for name in ("fetch", "load")} if options.examples else build.examples("fetch", "load")
    artifact = prepare(interpreter)
    samples = {name: {key: [] for key in ("pull", "cold", "load", "warm", "extra")} for name in TITLES}
    raw = {"wire_cold": [], "wire_warm": [], "memcpy": [], "disk_write": []}
    with tempfile.TemporaryDirectory(dir=paths.CACHE, prefix="bench-pulled-") as scratch:
        for number in range(options.rounds):
            order = list(TITLES)
            order = order[number % len(order):] + order[:number % len(order)]
            for name in order:
                once(name, artifact, Path(scratch), interpreter, ours, samples[name])
            limits(artifact, Path(scratch), raw)
            say(f"round {number + 1}", ", ".join(f"{n} {s['cold'][-1]:.1f}/{s['warm'][-1]:.1f} s" for n, s in samples.items()))
    report(artifact, samples, raw, options.rounds)


def prepare(interpreter: Path) -> Artifact:
    """The checkpoint in a folder of the cache and in the registry."""
    folder = paths.CACHE / "bench" / "half-sd"
    if not (folder / "model_index.json").exists():
        with step("weights", str(folder)):
            subprocess.run([interpreter, HERE / "make_weights.py", folder, paths.MODEL / "tokenizer"], check=True)
    with step("pushed", REPOSITORY):
        digest = registry.push(folder, REPOSITORY)
    return Artifact(folder, digest, build.digest(folder), sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def once(name: str, artifact: Artifact, scratch: Path, interpreter: Path, ours: dict[str, Path], samples: dict) -> None:
    """One contender: pulled while neither node nor page cache knows it, loaded, and loaded again with every byte verified by
    whoever can, and without."""
    place = scratch / name
    subprocess.run(["rm", "-rf", place], check=True)
    machine.forget(*artifact.layers())
    folder, pulled = pull(name, artifact, place, ours)
    first = load(name, folder, interpreter, ours)
    second = load(name, folder, interpreter, ours)
    # Ours hashes again, while it loads, what it has not fetched itself; nobody else does.
    warm = load(name, folder, interpreter, ours, artifact.listing) if name == OURS else second
    samples["pull"].append(pulled)
    samples["cold"].append(pulled + first["seconds"])
    samples["load"].append(second["seconds"])
    samples["warm"].append(warm["seconds"])
    samples["extra"].append((warm["peak"] - warm["before"] - warm["loaded"]) / 1e6)
    subprocess.run(["rm", "-rf", place], check=True)


def pull(name: str, artifact: Artifact, place: Path, ours: dict[str, Path]) -> tuple[str, float]:
    """The folder, and the seconds until every byte was there and had the right hash; oras checks that as well."""
    began = time.monotonic()
    if name != OURS:
        registry.oras("pull", f"{places.DIRECT_PLAIN}/{REPOSITORY}@{artifact.digest}", "--plain-http", "--output", place)
        return str(place), time.monotonic() - began
    known = credentials.read()
    done = subprocess.run([ours["fetch"], place, f"http://{places.DIRECT_PLAIN}/{REPOSITORY}", artifact.digest], capture_output=True, text=True,
                          env={**os.environ, "USERNAME": known.username, "PASSWORD": known.password}, check=False)
    if done.returncode != 0:
        raise Failure(f"fetch failed: {done.stderr[-2000:]}")
    return done.stdout.strip().rpartition(" at ")[2], time.monotonic() - began


def load(name: str, folder: str, interpreter: Path, ours: dict[str, Path], listing: str = "") -> dict:
    """`listing`: what ours shall verify every byte with, on its way into the tensors."""
    if name != OURS:
        return machine.told([interpreter, HERE / "load_as_peer.py", name, folder])
    said = machine.told([ours["load"], folder, "f32", *([listing] if listing else [])])
    return {"seconds": said["seconds"], "before": said["before_bytes"], "peak": said["peak_bytes"], "loaded": said["weight_bytes"]}


def limits(artifact: Artifact, scratch: Path, raw: dict) -> None:
    """What the machine gives to whoever does nothing else, in bytes a second."""
    largest = registry.blob(registry.largest_layer(artifact.digest))
    url = f"http://{places.DIRECT_PLAIN}/v2/{REPOSITORY}/blobs/{registry.largest_layer(artifact.digest)}"
    machine.forget(largest)
    raw["wire_cold"].append(machine.download(url))
    raw["wire_warm"].append(machine.download(url))
    raw["disk_write"].append(machine.write(scratch / "written", largest.stat().st_size))
    raw["memcpy"].append(machine.memcpy(largest.stat().st_size))


def report(artifact: Artifact, samples: dict, raw: dict, rounds: int) -> None:
    ours = samples[OURS]
    rows = [(TITLES[name], table.spread(s["cold"]), table.spread(s["pull"]), table.spread(s["warm"]), table.spread(s["load"]), f"{table.median(s['extra']):.0f} MB",
             "–" if name == OURS else f"{table.ratio(ours['cold'], s['cold'])} / {table.ratio(ours['warm'], s['warm'])} / {table.ratio(ours['load'], s['load'])}")
            for name, s in samples.items()]
    print(table.markdown(("", "cold: pull, verify, load", "of which the pull", "warm: verify and load", "the load alone", "memory beyond the weights",
                          "Easel ÷ this: cold / warm / load"), rows))
    gigabytes = artifact.bytes / 1e9
    wire, copy = [rate / 1e9 for rate in raw["wire_cold"]], [rate / 1e9 for rate in raw["memcpy"]]
    rates = [[gigabytes / s for s in ours[key]] for key in ("cold", "warm", "load")]
    print()
    print(table.markdown(("rate", "GB/s", "Easel", "share"), [
        ("one connection to the registry, nothing kept, bytes thrown away", table.spread(wire, "GB/s"), f"{table.median(rates[0]):.2f} cold", f"{table.ratio(rates[0], wire)}"),
        ("the same from the page cache", table.spread([r / 1e9 for r in raw["wire_warm"]], "GB/s"), "", ""),
        ("writing to the disk, with fsync", table.spread([r / 1e9 for r in raw["disk_write"]], "GB/s"), "", ""),
        ("memcpy", table.spread(copy, "GB/s"), f"{table.median(rates[1]):.2f} verify and load", f"{table.ratio(rates[1], copy)}"),
        ("memcpy", table.spread(copy, "GB/s"), f"{table.median(rates[2]):.2f} load alone", f"{table.ratio(rates[2], copy)}"),
    ]))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({
        "date": time.strftime("%Y-%m-%d"), "cores": machine.cores(), "machine": platform.machine(), "bytes": artifact.bytes,
        "rounds": rounds, "digest": artifact.digest, "peers": peers.REQUIREMENTS, "oras": str(binary("oras").parent.parent.name),
        "seconds": samples, "bytes_a_second": raw}, indent=1))
    say("results", str(RESULTS))


if __name__ == "__main__":
    try:
        main()
    except (Failure, AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")
