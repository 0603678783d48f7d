#!/usr/bin/env python3
"""Owns `make bench-simulate`: every policy on the reference fleet at four loads, five seeds each, and the highest load at which
nine requests of ten are in time. It must not know how anything is simulated; `kubectl easel simulate` does that."""

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import table  # noqa: E402
from easel import build, paths, toolchain  # noqa: E402
from onenode.progress import Failure, say  # noqa: E402

SCENARIOS = Path(__file__).resolve().parent / "scenarios"
RESULTS = paths.ROOT / "target" / "bench" / "simulate.json"
LOADS = ("0.4", "0.6", "0.72", "0.8")
CLIMBERS = ("easel", "cheapest-feasible", "shortest-delay", "least-request")
ENOUGH = 0.9
FLOOR, BOUND = "cheapest-feasible", "bound"
# Two-sided 95 % points of Student's t for 1 to 9 degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def main() -> None:
    options = arguments()
    plugin = options.plugin
    if not plugin:
        toolchain.ensure()
        plugin = build.plugin()
    asked = Asked(plugin, options.trace, options.seeds)
    runs = {load: asked.runs(SCENARIOS / f"reference-{load}.yaml", "all") for load in options.loads}
    highest = {policy: asked.highest(SCENARIOS / "reference-0.6.yaml", policy) for policy in CLIMBERS} if options.climb else {}
    report(runs, highest, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare policies on a simulated fleet.")
    parser.add_argument("--trace", type=Path, required=True, help="requests as CSV")
    parser.add_argument("--seeds", type=int, choices=range(2, 11), default=5, help="how many, from 1")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--no-climb", dest="climb", action="store_false", help="leave out the search for the highest load")
    parser.add_argument("--plugin", type=Path, help="the binary kubectl-easel, when it is built already")
    return parser.parse_args()


class Asked:
    """The plugin, asked about one trace."""

    def __init__(self, plugin: Path, trace: Path, seeds: int) -> None:
        self.command = [str(plugin), "simulate", "--trace", str(trace), "--seeds", f"1..{seeds}", "--json"]

    def runs(self, scenario: Path, policy: str, *more: str) -> list[dict]:
        say("simulate", " ".join([scenario.name, policy, *more]))
        done = subprocess.run([*self.command, "--scenario", str(scenario), "--policy", policy, *more], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(done.stderr)
        return json.loads(done.stdout)

    def highest(self, scenario: Path, policy: str) -> float:
        """To a hundredth, by bisection: more load never helps."""
        low, high = 0, 128
        while high - low > 1:
            middle = (low + high) // 2
            found = statistics.mean(run["slo_attainment"] for run in self.runs(scenario, policy, f"--rho={middle / 100}"))
            low, high = (middle, high) if found >= ENOUGH else (low, middle)
        return low / 100


def report(runs: dict[str, list[dict]], highest: dict[str, float], options: argparse.Namespace) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"date": datetime.date.today().isoformat(), "seeds": options.seeds, "runs": runs, "highest_rho": highest}, indent=1))
    for load, found in runs.items():
        print(f"\nρ {load}: {found[0]['requests']} requests, seeds 1 to {options.seeds}, mean ± half of the 95 % interval, in percent\n")
        print(table.markdown(HEAD, [row(policy, found) for policy in dict.fromkeys(run["policy"] for run in found)]))
    if highest:
        print(f"\nHighest ρ with {ENOUGH:.0%} in time\n")
        print(table.markdown(("policy", "ρ"), [(policy, f"{rho:.2f}") for policy, rho in highest.items()]))
    print(f"\nEvery figure: {RESULTS}")


HEAD = ("policy", "in time", "weighted by work", "1 image", "2", "4", "8", "worst model", "tail", "loads per request", "to the bound", "gap closed")


def row(policy: str, found: list[dict]) -> tuple[str, ...]:
    runs = [run for run in found if run["policy"] == policy]
    if policy == BOUND:
        return (f"*{policy}*", percent(runs, attained), percent(runs, lambda run: run["weighted_attainment"]), *["–"] * (len(HEAD) - 3))
    return (
        f"**{policy}**" if policy == "easel" else policy,
        percent(runs, attained),
        percent(runs, lambda run: run["weighted_attainment"]),
        *(percent(runs, lambda run, images=images: bucket(run, images)) for images in (1, 2, 4, 8)),
        percent([run for run in runs if run["worst_model"]], lambda run: run["worst_model"]["slo_attainment"]),
        percent(runs, lambda run: run["tail"]["slo_attainment"]),
        f"{statistics.mean(run['switch_share'] for run in runs):.2f}",
        percent(runs, lambda run: bound(found, run["seed"]) - attained(run)),
        gap_closed(policy, found),
    )


def attained(run: dict) -> float:
    return run["slo_attainment"]


def bucket(run: dict, images: int) -> float:
    return next((kind["slo_attainment"] for kind in run["by_images"] if kind["images"] == images), math.nan)


def bound(found: list[dict], seed: int) -> float:
    return next(attained(run) for run in found if run["policy"] == BOUND and run["seed"] == seed)


def gap_closed(policy: str, found: list[dict]) -> str:
    """Of what lies between cheapest feasible and the bound, the share that this policy won."""
    mean = {name: statistics.mean(attained(run) for run in found if run["policy"] == name) for name in (policy, FLOOR, BOUND)}
    if policy == FLOOR or mean[BOUND] <= mean[FLOOR]:
        return "–"
    closed = (mean[policy] - mean[FLOOR]) / (mean[BOUND] - mean[FLOOR])
    return f"{closed:.0%}" if closed >= 0 else "none"


def percent(runs: list[dict], value) -> str:
    values = [100 * value(run) for run in runs]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    half = STUDENT[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"failed: {failure}")
