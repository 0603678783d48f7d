#!/usr/bin/env python3
"""Owns the soak: clients that draw without a pause while pods and leaders are killed, replayable by its seed.
It must not know how a promise is written; `promises/test_soak.py` runs a short sample of it."""

import argparse
import concurrent.futures
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from easel import gateway, install  # noqa: E402
from easel.kube import Cluster  # noqa: E402
from onenode.progress import say  # noqa: E402

PROMPTS = ("pizza", "red heart", "fire", "rocket", "cat face", "soccer ball", "sun", "crying face")
CLIENTS = 3
VICTIMS = ("app.kubernetes.io/name=easel-inference", "app.kubernetes.io/name=easel-operator")


@dataclass
class Result:
    answers: Counter = field(default_factory=Counter)
    attempts: int = 0
    kills: int = 0
    slowest: float = 0.0

    @property
    def lost(self) -> int:
        return sum(n for status, n in self.answers.items() if status != 200)


def soak(cluster: Cluster, seconds: float, seed: int, pause: tuple[float, float] = (5, 15), victims: tuple[str, ...] = VICTIMS) -> Result:
    """Runs the clients and the killer side by side until the time is over and every request has its answer."""
    result, end = Result(), time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(CLIENTS + 1) as executor:
        clients = [executor.submit(_client, result, end, random.Random(seed * 100 + i)) for i in range(CLIENTS)]
        killer = executor.submit(_killer, cluster, result, end, random.Random(seed), pause, victims)
        for future in (*clients, killer):
            future.result()
    return result


def _client(result: Result, end: float, chance: random.Random) -> None:
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            answer = gateway.draw(install.GATEWAY, model="emoji", prompt=chance.choice(PROMPTS), seed=chance.randrange(1000),
                                  n=chance.randint(1, 3), steps=chance.randint(5, 40))
            status = answer.status
            result.attempts += int(answer.headers.get("x-easel-attempts", 1))
        except OSError as error:  # the gateway itself went away while it held the connection
            status = type(error).__name__
        result.answers[status] += 1
        result.slowest = max(result.slowest, time.monotonic() - began)


def _killer(cluster: Cluster, result: Result, end: float, chance: random.Random, pause: tuple[float, float], victims) -> None:
    while (wait := chance.uniform(*pause)) < end - time.monotonic():
        time.sleep(wait)
        pods = cluster.get("pods", "-n", install.NAMESPACE, "-l", chance.choice(victims)) or []
        alive = sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp"))
        if alive:
            cluster.kubectl("-n", install.NAMESPACE, "delete", "pod", chance.choice(alive), "--grace-period=0", "--force", "--wait=false")
            result.kills += 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw on the running local cluster while its pods are killed.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = soak(Cluster(), options.seconds, options.seed)
    say("soak", f"{result.answers.total()} requests, {result.kills} kills, {result.lost} lost, slowest {result.slowest:.1f} s, answers {dict(result.answers)}")
    return 1 if result.lost or not result.answers else 0


if __name__ == "__main__":
    sys.exit(main())
