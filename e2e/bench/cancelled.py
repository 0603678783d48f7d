"""Owns how many steps a pod takes of a request after it was cancelled, by a call or by its client's hanging up.
It must not start a pod."""

import random
import time

from bench.checkpoints import Checkpoint
from bench.observed_pod import ObservedPod

WAYS = ("call", "hang-up")
#: A step takes far longer than two scrapes, so that few of them end between the two.
SIZE = "256x256"


def measure(pod: ObservedPod, checkpoint: Checkpoint, rounds: int, seed: int) -> list[dict]:
    pod.load(checkpoint)
    _warm_up(pod, checkpoint)
    chance = random.Random(seed)
    return [_once(pod, checkpoint, way, f"{way}-{number}", chance) for number in range(rounds) for way in WAYS]


def _warm_up(pod: ObservedPod, checkpoint: Checkpoint) -> None:
    pod.begin(checkpoint, "warm-up", SIZE, steps=2).wait()


def _once(pod: ObservedPod, checkpoint: Checkpoint, way: str, name: str, chance: random.Random) -> dict:
    """`most`: steps that ended after the last look before the act; `least`: after the first look after it. They differ when
    one ended between the two looks: then nobody can tell which of both it is."""
    began = pod.steps()
    drawing = pod.begin(checkpoint, name, SIZE)
    cancel = drawing.canceller() if way == "call" else drawing.hang_up
    pod.wait_for(lambda: pod.steps().since(began).count >= 3, "a third step")
    taken = pod.steps().since(began)
    time.sleep(chance.uniform(0, 2 * taken.mean))
    before = pod.steps()
    at = time.monotonic()
    cancel()
    after = pod.steps()
    pod.wait_for(lambda: not pod.running(), "the end of a cancelled request", pause=0.005)
    seconds = time.monotonic() - at
    time.sleep(3 * taken.mean)  # for a step that should not be
    end = pod.steps()
    return {"way": way, "step_seconds": taken.mean, "most": end.since(before).count, "least": end.since(after).count, "seconds_to_stop": seconds,
            "status": drawing.wait()}
