"""Owns how long a pod's steps take while it loads a second checkpoint, beside those when it does not.
It must not start a pod.

Two more intervals say what a machine can do at all: another process that hashes the same file meanwhile, and nothing."""

import statistics
import subprocess
import time
from collections.abc import Callable

from bench.checkpoints import Checkpoint
from bench.observed_pod import ObservedPod, Steps, holds, model

#: Of a quiet interval.
SECONDS = 4.0
#: One after the other, so that no round outlives them.
REQUESTS = 4
#: Steps of which the report's median speaks (`KEPT` of the pod's `step_times.rs`).
WINDOW = 15


def measure(pod: ObservedPod, drawn: Checkpoint, second: Checkpoint, size: str, pictures: int, rounds: int) -> list[dict]:
    """Of each round the steps in every interval, while the pod draws without a pause."""
    pod.load(drawn)
    found = []
    for number in range(rounds):
        # Steps of them are always of as many pictures, for that is the pod's largest batch.
        drawings = [pod.begin(drawn, f"batch-{number}-{place}", size, pictures) for place in range(REQUESTS)]
        _until_steps(pod, WINDOW)
        found.append(_round(pod, drawn, second))
        assert any(drawing.is_drawn() for drawing in drawings), "all pictures were drawn before the round was over"
        for drawing in drawings:
            drawing.canceller()()
            drawing.wait()
    return found


def _until_steps(pod: ObservedPod, count: int) -> None:
    began = pod.steps()
    pod.wait_for(lambda: pod.steps().since(began).count >= count, f"{count} steps", pause=0.05)


def _round(pod: ObservedPod, drawn: Checkpoint, second: Checkpoint) -> dict:
    found = {"quiet": _interval(pod, drawn, _elapsed(SECONDS))}
    pod.hold(drawn, second)
    found["loading"] = _interval(pod, drawn, lambda report: holds(report, (drawn, second)))
    pod.load(drawn)
    _until_steps(pod, WINDOW)
    found["quiet again"] = _interval(pod, drawn, _elapsed(SECONDS))
    with subprocess.Popen(["sha256sum", *[second.largest()] * 20], stdout=subprocess.DEVNULL) as other:
        _until_steps(pod, WINDOW)
        found["other process"] = _interval(pod, drawn, _elapsed(SECONDS))
        assert other.poll() is None, "the other process ended too early"
        other.kill()
    _until_steps(pod, WINDOW)
    return found


def _elapsed(seconds: float) -> Callable[[dict], bool]:
    until = time.monotonic() + seconds
    return lambda _: time.monotonic() > until


def _interval(pod: ObservedPod, drawn: Checkpoint, is_over: Callable[[dict], bool]) -> dict:
    """The report is read in all of them, so that reading it costs all of them the same."""
    began, at, medians = pod.steps(), time.monotonic(), []
    for report in pod.reports():
        times = (model(report, drawn) or {}).get("step_times") or []
        medians += [times[0]["ms"] / 1000] if times else []
        if is_over(report):
            break
    steps: Steps = pod.steps().since(began)
    skipped = medians[len(medians) // 3:]  # the first of them speak of steps before
    return {"seconds": time.monotonic() - at, "steps": steps.count, "mean": steps.mean, "median": statistics.median(skipped)}
