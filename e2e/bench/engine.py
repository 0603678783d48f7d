#!/usr/bin/env python3
"""Owns `make bench-engine`: seconds per picture of our pipelines and of diffusers, same weights, libtorch, threads and dtype,
in turns. It must not know how a picture is drawn; a contender is a command."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import machine, peers, table  # noqa: E402
from bench.contender import Contender  # noqa: E402
from easel import build, paths, toolchain  # noqa: E402
from onenode.progress import Failure, say, step  # noqa: E402

HERE = Path(__file__).resolve().parent
FOLDER = paths.ROOT / "target" / "bench"
RESULTS = FOLDER / "engine.json"
SAMPLERS = {"unet": "ddim", "dit": "flow_match_euler"}
TITLES = {"unet": "UNet", "dit": "DiT"}
PROMPTS = ["a red car", "a cat", "two green apples on a table", "a house in the snow", "a dog with a hat", "the sea at night", "a yellow flower", "a pizza"]
# Of glibc's malloc, as the inference image has it: huge pages for what is large. The peer is measured with it too, in a third row.
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}
PARTS = ("encode", "steps", "decode")


def main() -> None:
    options = arguments()
    toolchain.ensure()
    interpreter = peers.python()
    draw = options.draw or build.examples("draw")["draw"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, found = [], []
    for model in options.models:
        folder = checkpoint(interpreter, model)
        for dtype in options.dtypes:
            contenders = start(draw, interpreter, folder, dtype, options.threads)
            for size in options.sizes:
                for batch in options.batches:
                    found.append(measure(contenders, model, dtype, size, batch, options))
                    rows.append(row(found[-1]))
                    say(f"{rows[-1][0]}", f"Easel ÷ diffusers {rows[-1][4]}, with huge pages {rows[-1][6]}, processor {rows[-1][7]}, parts {rows[-1][5]}")
            for contender in contenders.values():
                contender.close()
    report(rows, found, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure seconds per picture beside diffusers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--models", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], default=["f32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--draw", type=Path, help="the example `draw`, when it is built already")
    return parser.parse_args()


def checkpoint(interpreter: Path, model: str) -> Path:
    folder = paths.CACHE / "bench" / f"engine-{model}"
    if not (folder / "parameters.json").exists():
        with step("weights", str(folder)):
            subprocess.run([interpreter, HERE / "engine_weights.py", folder, model, paths.MODEL / "tokenizer"], check=True)
    return folder


def start(draw: Path, interpreter: Path, folder: Path, dtype: str, threads: int) -> dict[str, Contender]:
    """All of them with threads that sleep while they wait: a contender that waits for its turn must not spin."""
    peer = [interpreter, HERE / "engine_peer.py", folder, dtype, threads]
    return {
        "easel": Contender([draw, folder, dtype, threads], threads, {**WAIT, **HUGE}, FOLDER / "draw.log"),
        "diffusers": Contender(peer, threads, WAIT, FOLDER / "diffusers.log"),
        "huge": Contender(peer, threads, {**WAIT, **HUGE}, FOLDER / "diffusers-huge.log"),
    }


def measure(contenders: dict[str, Contender], model: str, dtype: str, size: int, batch: int, options: argparse.Namespace) -> dict:
    asked = {"prompts": PROMPTS[:batch], "size": f"{size}x{size}", "steps": options.steps, "guidance": 5.0, "sampler": SAMPLERS[model]}
    names, saved = list(contenders), {}
    for name, contender in contenders.items():  # once for what is made once
        saved[name] = FOLDER / f"{name}.rgb"
        contender.draw({**asked, "save": str(saved[name])})
    samples = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            samples[name].append(contenders[name].draw(asked))
    ours, theirs = (saved[name].read_bytes() for name in ("easel", "diffusers"))
    difference = max(map(abs, map(int.__sub__, ours, theirs))) if len(ours) == len(theirs) else 255
    return {"model": model, "dtype": dtype, "size": size, "batch": batch, "steps": options.steps, "pixel_difference": difference, "samples": samples}


def row(case: dict) -> tuple[str, ...]:
    def seconds(name: str, part: str = "seconds") -> list[float]:
        return [sample[part] / case["batch"] for sample in case["samples"][name]]

    def parts(beside: str) -> str:
        return " / ".join(table.ratio(seconds("easel", part), seconds(beside, part)) for part in PARTS)

    title = f"{TITLES[case['model']]}, {case['dtype']}, {case['size']}², batch {case['batch']}"
    return (title, table.spread(seconds("easel")), table.spread(seconds("diffusers")), table.spread(seconds("huge")),
            table.ratio(seconds("easel"), seconds("diffusers")), parts("diffusers"), table.ratio(seconds("easel"), seconds("huge")),
            table.ratio(seconds("easel", "cpu"), seconds("diffusers", "cpu")), f"{case['pixel_difference']}")


def report(rows: list[tuple[str, ...]], found: list[dict], options: argparse.Namespace) -> None:
    print(f"\n{machine.cores()}, {options.threads} threads, {options.steps} steps with guidance, median of {options.rounds}, {time.strftime('%d %B %Y')}\n")
    print(table.markdown(("", "**Easel**, s per picture", "diffusers", "diffusers, huge pages", "Easel ÷ diffusers", "prompt / steps / VAE",
                          "Easel ÷ diffusers with huge pages", "processor time", "largest difference of a pixel, of 255"), rows))
    RESULTS.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "cores": machine.cores(), "machine": platform.machine(), "command": sys.argv[1:],
                                   "threads": options.threads, "peers": peers.REQUIREMENTS, "cases": found}, indent=1))
    say("results", str(RESULTS))


if __name__ == "__main__":
    try:
        main()
    except (Failure, AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")
