"""Owns a pod that is measured: what it is told to hold and to draw, and what its metrics and its report say meanwhile.
It must not know what is compared."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints import Checkpoint
from engine import pods
from onenode.progress import Failure

#: Nothing here takes as long.
LONG = 120
#: More are refused by models that were trained on 1,000 time steps.
MAX_STEPS = 900


@dataclass(frozen=True)
class Steps:
    """Model calls since the pod began."""

    count: int
    seconds: float

    def since(self, earlier: "Steps") -> "Steps":
        return Steps(self.count - earlier.count, self.seconds - earlier.seconds)

    @property
    def mean(self) -> float:
        return self.seconds / self.count


class ObservedPod:
    def __init__(self, binary: Path, folder: Path, environment: dict, *flags: str):
        self.pod = pods.Pod.start(binary, "measured", pods.Authority(folder), *flags, environment=environment)
        self._sequence = 0

    def close(self) -> None:
        self.pod.kill()
        self.pod.wait(60)

    def hold(self, *checkpoints: Checkpoint) -> None:
        """Answers at once; `until` says when they are there."""
        self._sequence += 1
        defaults = {"steps": 20, "guidance_scale": 3.0, "size": "64x64"}
        wanted = [pods.model(each.name, each.folder, each.digest, defaults={**defaults, "sampler": each.sampler}) for each in checkpoints]
        self.pod.hold((1, self._sequence), wanted)

    def steps(self) -> Steps:
        found = self.pod.metrics()
        total = {what: sum(value for name, value in found.items() if name.startswith(f"step_seconds_{what}")) for what in ("count", "sum")}
        return Steps(round(total["count"]), total["sum"])

    def running(self) -> int:
        return round(self.pod.metrics()["running"])

    def memory(self) -> int:
        """Resident bytes."""
        self.pod.sample_memory()
        return self.pod.memory[-1]

    def wait_for(self, condition: Callable[[], bool], what: str, pause: float = 0.01) -> None:
        until = time.monotonic() + LONG
        while not condition():
            if time.monotonic() > until:
                raise Failure(f"{what} did not come within {LONG} s; see {self.pod.log}")
            time.sleep(pause)

    def reports(self):
        """Lines of the report stream as they come, ten a second at most."""
        connection = self.pod.connect(timeout=LONG)
        try:
            connection.request("GET", "/engine/v1/report")
            answer = connection.getresponse()
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def until(self, wanted: Callable[[dict], bool]) -> dict:
        """The first report that is as wanted."""
        until = time.monotonic() + LONG
        for report in self.reports():
            if wanted(report):
                return report
            if time.monotonic() > until:
                break
        raise Failure(f"the pod did not become as wanted within {LONG} s; see {self.pod.log}")

    def load(self, *checkpoints: Checkpoint) -> dict:
        """Holds these and no others, and gives the report when all of them can draw."""
        self.hold(*checkpoints)
        return self.until(lambda report: holds(report, checkpoints))

    def begin(self, checkpoint: Checkpoint, name: str, size: str, pictures: int = 1, steps: int = MAX_STEPS) -> "Drawing":
        return Drawing(self.pod, checkpoint, name, {"size": size, "n": pictures, "steps": steps})


class Drawing:
    """One request whose answer nobody looks at. Waits until the pod draws it."""

    def __init__(self, pod: pods.Pod, checkpoint: Checkpoint, name: str, asked: dict):
        self._pod, self.name = pod, name
        self._connection = pod.connect(timeout=LONG)
        body = {"model": checkpoint.name, "prompt": "a cat", "seed": 1, "guidance_scale": 3.0, "sampler": checkpoint.sampler, **asked}
        self._connection.request("POST", "/v1/images/generations", json.dumps(body), {"content-type": "application/json", "x-request-id": name})
        self._answer = threading.Thread(target=self._wait, daemon=True)
        self.status = None
        self._answer.start()

    def _wait(self) -> None:
        try:
            answer = self._connection.getresponse()
            answer.read()
            self.status = answer.status
        except (OSError, ValueError, http.client.HTTPException):
            pass  # hung up

    def wait(self) -> int | None:
        self._answer.join(LONG)
        return self.status

    def is_drawn(self) -> bool:
        """Still."""
        return self._answer.is_alive()

    def canceller(self) -> Callable[[], None]:
        """What cancels it by its name, over a connection that is open already."""
        connection = self._pod.connect(timeout=LONG)

        def cancel() -> None:
            connection.request("DELETE", f"/engine/v1/requests/{self.name}")

        return cancel

    def hang_up(self) -> None:
        self._connection.sock.shutdown(2)


def holds(report: dict, checkpoints: tuple[Checkpoint, ...]) -> bool:
    """All of these are ready, and no others are there."""
    states = {model["id"]: model["state"]["state"] for model in report["models"]}
    return states == {each.name: "ready" for each in checkpoints}


def model(report: dict, checkpoint: Checkpoint) -> dict | None:
    return next((each for each in report["models"] if each["id"] == checkpoint.name), None)
