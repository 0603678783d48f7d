#!/usr/bin/env python3
"""Owns the engine's soak: many mixed requests over pods that are ended, killed and told to hold other models meanwhile.
It must not know how a request finds its pod, nor what a right answer is; `engine/` does."""

import argparse
import concurrent.futures
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from easel import build, paths, toolchain  # noqa: E402

sys.path.insert(0, str(toolchain.python_packages(*toolchain.CLIENTS)))  # Pillow

from engine import adapters, pods  # noqa: E402
from engine.ledger import Ledger  # noqa: E402
from engine.requests import Patience, Request, drawings, requests  # noqa: E402
from engine.router import Client, Lost, Router  # noqa: E402
from onenode.progress import say  # noqa: E402

MODEL, EDITOR = "soak/emoji", "soak/emoji-edit"
ADAPTERS = ("warm", "cold", "odd")
CLIENTS = 16
PODS = 2
#: Steps between two snapshots: what a killed pod costs a picture at most.
SNAPSHOT_STEPS = 5
SAMPLE_SECONDS = 1.0
CHANGE_SECONDS = (4.0, 9.0)


@dataclass
class Fleet:
    """The pods, and what they are told to hold."""

    binary: Path
    authority: pods.Authority
    router: Router
    models: list[dict]
    started: int = 0
    sequence: int = 0
    #: Memory of pods that have ended, by name.
    memory: dict[str, list[int]] = field(default_factory=dict)

    def start(self) -> pods.Pod:
        self.started += 1
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        pod = pods.Pod.start(self.binary, f"pod-{self.started}", self.authority, "--threads=1", environment=environment)
        self.memory[pod.name] = pod.memory
        self.hold(pod, self.models)
        until = time.monotonic() + 120
        while MODEL not in pod.serves():
            if time.monotonic() > until:
                raise SystemExit(f"{pod.name} did not load its models within 120 s; see {pod.log}")
            time.sleep(0.1)
        self.router.add(pod)
        return pod

    def hold(self, pod: pods.Pod, models: list[dict]) -> None:
        self.sequence += 1
        pod.hold((1, self.sequence), models)


def models(folder: Path) -> list[dict]:
    own = []
    for seed, name in enumerate(ADAPTERS):
        at = folder / name
        digest = adapters.write(at, paths.MODEL, seed)
        own.append({"name": name, "checkpoint": {"source": {"kind": "folder", "path": str(at)}, "digest": digest}})
    emoji, editor = paths.MODEL, paths.EDIT_MODEL
    return [pods.model(MODEL, emoji, adapters.digest(emoji), adapters=own), pods.model(EDITOR, editor, adapters.digest(editor))]


def serve(router: Router, ledger: Ledger, request: Request) -> None:
    client, timer = Client(), None
    if request.patience is Patience.HANGS_UP:
        timer = threading.Timer(request.acts_after, client.hang_up)
    elif request.patience is Patience.CANCELS:
        timer = threading.Timer(request.acts_after, cancel, (router, request))
    if timer:
        timer.start()
    try:
        headers = {**request.headers, "x-request-id": request.id}
        answer = router.draw(request.drawing.path, request.drawing.body, headers, client)
        if answer is None:
            ledger.hung_up(request)
        else:
            ledger.answered(request, answer.status, answer.body, answer.tries, answer.spared)
    except Lost as lost:
        ledger.lost(request, str(lost))
    finally:
        if timer:
            timer.cancel()


def cancel(router: Router, request: Request) -> None:
    """By its id, on whichever pod has it."""
    for pod in router.pods:
        try:
            pod.call("gateway", "DELETE", f"/engine/v1/requests/{request.id}")
        except OSError:
            continue


def disturb(fleet: Fleet, stop: threading.Event, chance: random.Random) -> None:
    """Other residencies: the editor goes and comes back, on one pod at a time, and adapters are named in another order."""
    while not stop.wait(chance.uniform(*CHANGE_SECONDS)):
        for pod in fleet.router.pods:
            wanted = [dict(model) for model in fleet.models]
            if chance.random() < 0.4 and pod is not fleet.router.pods[0]:
                wanted = wanted[:1]
            wanted[0]["adapters"] = chance.sample(wanted[0]["adapters"], len(wanted[0]["adapters"]))
            try:
                fleet.hold(pod, wanted)
            except OSError:
                continue  # it goes


def watch(fleet: Fleet, stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_SECONDS):
        for pod in fleet.router.pods:
            pod.sample_memory()


def replace(fleet: Fleet, violently: bool) -> None:
    """A new pod first, then the oldest goes: in peace, handing over, or at once."""
    oldest = fleet.router.pods[0]
    fleet.start()
    if violently:
        fleet.router.remove(oldest)
        oldest.kill()
    else:
        oldest.terminate()
        if oldest.wait(60) is None:
            raise SystemExit(f"{oldest.name} did not end within 60 s of SIGTERM; see {oldest.log}")
        fleet.router.remove(oldest)


def growth(samples: list[int]) -> float | None:
    """From the second quarter of a pod's life to the last; the first warms it up."""
    if len(samples) < 16:
        return None
    quarter = len(samples) // 4
    return statistics.median(samples[-quarter:]) / statistics.median(samples[quarter:2 * quarter]) - 1


def soak(fleet: Fleet, wanted: list[Request], ledger: Ledger, hand_overs: int, kills: int, seed: int) -> None:
    chance, stop = random.Random(seed), threading.Event()
    for _ in range(PODS):
        fleet.start()
    # Evenly over the run, in turns.
    events = [False] * hand_overs + [True] * kills
    chance.shuffle(events)
    at = {round((number + 1) * len(wanted) / (len(events) + 1)): violently for number, violently in enumerate(events)}
    side = [threading.Thread(target=watch, args=(fleet, stop)), threading.Thread(target=disturb, args=(fleet, stop, random.Random(seed + 1)))]
    for thread in side:
        thread.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
            done = [clients.submit(serve, fleet.router, ledger, request) for request in wanted]
            for number, future in enumerate(done):
                if number in at:
                    replace(fleet, at[number])
                future.result()
                if number % 100 == 99:
                    say("soak", f"{number + 1} of {len(wanted)}: {dict(ledger.ends)}")
    finally:
        stop.set()
        for thread in side:
            thread.join()
        for pod in fleet.router.pods:
            pod.terminate()
            pod.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw many mixed requests on pods that come and go.")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--hand-overs", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binary", type=Path, default=build.INFERENCE)
    options = parser.parse_args()
    if options.binary == build.INFERENCE:
        build.binaries()
    began, ledger = time.monotonic(), Ledger()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        fleet = Fleet(options.binary, pods.Authority(folder), Router(SNAPSHOT_STEPS), models(folder / "adapters"))
        picture = (paths.ROOT / "inference-pod/models/cards/heart.png").read_bytes()
        kinds = drawings(MODEL, EDITOR, list(ADAPTERS), picture, options.seed)
        soak(fleet, requests(kinds, options.requests, options.seed), ledger, options.hand_overs, options.kills, options.seed)
    grown = {name: grown for name, samples in fleet.memory.items() if (grown := growth(samples)) is not None}
    say("soak", f"{options.requests} requests in {time.monotonic() - began:.0f} s: {dict(ledger.ends)}; {ledger.tries} tries, {ledger.resumed} resumed, which spared {ledger.spared} steps")
    say("soak", f"{fleet.router.moved} handed over, {fleet.router.lost} lost their pod, sent elsewhere by status {dict(fleet.router.refusals)}")
    say("soak", f"pictures of one drawing differ by at most {ledger.worst} of 255")
    say("soak", "memory: " + ", ".join(f"{name} {max(fleet.memory[name]) >> 20} MiB, {100 * by:+.1f} %" for name, by in grown.items()))
    for problem in ledger.problems[:20]:
        say("soak", problem)
    return 1 if ledger.problems or ledger.ends.total() != options.requests else 0


if __name__ == "__main__":
    sys.exit(main())
