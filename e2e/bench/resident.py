"""Owns what a pod's memory grows by with each checkpoint that it holds, beside the bytes of the checkpoint's weights.
It must not start a pod."""

import time

from bench.checkpoints import Checkpoint
from bench.observed_pod import ObservedPod, model

SIZE = "256x256"
#: The allocator gives back what is large at once; the rest of a load's end is a few reports.
PAUSE = 1.0


def measure(pod: ObservedPod, first: Checkpoint, others: list[Checkpoint]) -> dict:
    """The first has paid for what is made once. Then each is loaded beside those before, then each draws, then all leave."""
    pod.load(first)
    _draw(pod, first)
    base = _settled(pod)
    held, rows = [first], []
    before = base
    for checkpoint in others:
        held.append(checkpoint)
        report = pod.load(*held)
        now = _settled(pod)
        rows.append({"name": checkpoint.name, "weights": model(report, checkpoint)["bytes"]["device"], "grown": now - before,
                     "on_disk": checkpoint.bytes()})
        before = now
    for checkpoint in others:
        _draw(pod, checkpoint)
    drawn = _settled(pod)
    pod.load(first)
    return {"base": base, "checkpoints": rows, "after_drawing": drawn, "after_leaving": _settled(pod)}


def _draw(pod: ObservedPod, checkpoint: Checkpoint) -> None:
    status = pod.begin(checkpoint, f"drawn-{checkpoint.name}", SIZE, steps=2).wait()
    assert status == 200, f"{checkpoint.name} answered {status}"


def _settled(pod: ObservedPod) -> int:
    time.sleep(PAUSE)
    return pod.memory()
