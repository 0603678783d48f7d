"""A pod that goes, or dies, costs its requests no picture: what it had done goes on in another pod.

Two real pods with the default model, as processes; a router in a page stands in for the gateway: it reads frames and
keeps snapshots as the gateway does."""

import base64
import concurrent.futures
import io
import json
import os
import struct
import tempfile
import time
import unittest
from pathlib import Path

from PIL import Image, ImageChops

from easel import build, paths
from engine import adapters, pods
from engine.requests import GENERATIONS, PROMPTS, SAMPLERS
from engine.router import Answer, Client, Router

MODEL = "test/emoji"
JOBS = 30
STEPS = 40
#: Model calls of a picture between two snapshots.
K = 5
MAX_BATCH = 4
#: Pictures that hold latents at once, at most (`RUNNING_PER_PLACE` of the engine).
RUNNING = 4 * MAX_BATCH
#: Nothing here takes as long, however busy the cores are.
LONG = 300


class HandOver(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        authority = pods.Authority(Path(held.name))
        self.router = Router(snapshot_steps=K)
        self.first, self.second = (self.pod(name, authority) for name in ("first", "second"))

    def pod(self, name: str, authority: pods.Authority) -> pods.Pod:
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        pod = pods.Pod.start(build.INFERENCE, name, authority, "--threads=1", f"--max-batch={MAX_BATCH}", environment=environment)
        self.addCleanup(pod.wait, LONG)
        self.addCleanup(pod.kill)
        pod.hold((1, 1), [pods.model(MODEL, paths.MODEL, adapters.digest(paths.MODEL))])
        self.until(lambda: MODEL in pod.serves(), f"{name} did not load the model")
        return pod

    def until(self, condition, otherwise: str) -> None:
        end = time.monotonic() + LONG
        while not condition():
            if time.monotonic() > end:
                self.fail(otherwise)
            time.sleep(0.02)

    def draw(self, number: int) -> Answer:
        body = {"model": MODEL, "prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "steps": STEPS,
                "sampler": sampler(number), "size": "64x64", "guidance_scale": 3.0}
        answer = self.router.draw(GENERATIONS, body, {"x-request-id": f"job-{number}"}, Client())
        self.assertEqual(answer.status, 200, answer.body)
        return answer

    def drawn_on(self, pod: pods.Pod) -> list[Answer]:
        """All jobs, undisturbed."""
        self.router.pods = [pod]
        with concurrent.futures.ThreadPoolExecutor(JOBS) as clients:
            return list(clients.map(self.draw, range(JOBS)))

    def interrupted(self, end) -> list[Answer]:
        """All jobs on the first pod, which is ended when it has begun some; the second takes over."""
        self.router.pods, self.router.snapshots = [self.first], 0
        with concurrent.futures.ThreadPoolExecutor(JOBS) as clients:
            drawing = [clients.submit(self.draw, number) for number in range(JOBS)]
            self.until(lambda: self.router.in_flight == JOBS and self.router.snapshots >= 8, "no snapshots came")
            self.router.pods = [self.first, self.second]
            self.done = steps_of(self.first)
            end(self.first)
            self.router.remove(self.first)
            return [job.result() for job in drawing]

    def assert_same(self, found: list[Answer], wanted: list[Answer]) -> None:
        differences = [apart(one, other) for one, other in zip(found, wanted, strict=True)]
        resumed = sum(answer.spared > 0 for answer in found)
        print(f"\n{JOBS} pictures: {resumed} resumed, {differences.count(0)} equal to the bit, at most {max(differences)} of 255 apart")
        self.assertGreater(resumed, 0)
        self.assertLessEqual(max(differences), 1)

    def assert_lost(self, most: int, found: list[Answer], before: int) -> None:
        """The second pod made the calls that were left and no others; of those that the first had made when it was ended,
        what is lost is at most this of each picture on its way."""
        moved = [number for number, answer in enumerate(found) if answer.tries > 1]
        spared = sum(found[number].spared for number in moved)
        self.assertEqual(steps_of(self.second) - before, sum(map(calls, moved)) - spared)
        finished = sum(calls(number) for number in range(JOBS) if number not in moved)
        lost, begun = self.done - finished - spared, min(len(moved), RUNNING)
        print(f"{len(moved)} jobs went elsewhere; {self.done} steps were made before, of which {max(lost, 0)} are lost")
        self.assertLessEqual(lost, most * begun)

    def test_a_pod_that_is_told_to_end_gives_every_job_away_as_it_is(self):
        wanted = self.drawn_on(self.second)
        before = steps_of(self.second)
        found = self.interrupted(pods.Pod.terminate)
        self.assertEqual(self.first.wait(LONG), 0, "the first pod did not end in peace")
        self.assert_same(found, wanted)
        self.assert_lost(0, found, before)

    def test_a_pod_that_is_killed_costs_each_job_at_most_the_steps_since_its_snapshot(self):
        wanted = self.drawn_on(self.second)
        before = steps_of(self.second)
        found = self.interrupted(pods.Pod.kill)
        self.assert_same(found, wanted)
        self.assert_lost(K, found, before)


def sampler(number: int) -> str:
    return SAMPLERS[number % len(SAMPLERS)]


def calls(number: int) -> int:
    """Of the model; Heun makes two a step, and one at the last."""
    return 2 * STEPS - 1 if sampler(number) == "heun" else STEPS


def apart(one: Answer, other: Answer) -> int:
    pictures = [Image.open(io.BytesIO(base64.b64decode(answer.body["data"][0]["b64_json"]))).convert("RGB") for answer in (one, other)]
    return max(high for _, high in ImageChops.difference(*pictures).getextrema())


def steps_of(pod: pods.Pod) -> int:
    """Model calls of all jobs: a step of two jobs counts twice."""
    return round(pod.metrics()["batch_occupancy_sum"] * MAX_BATCH)
