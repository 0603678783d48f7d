"""Owns one request's way over pods that come and go: what the gateway does, in a page, for tests of pods alone.
It must not know what is drawn. Speaks the engine protocol: frames, snapshots, hand-over."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from engine import frames
from engine.pods import Pod

#: A pod that says nothing for so long is lost. Its longest step on busy cores is far shorter.
SILENCE = 120
#: A request is given up after so many lost pods, as by the gateway.
MAX_DEATHS = 2
LONGEST = 600
PAUSE = 0.05
HAND_OVER = "/engine/v1/handover"


class Lost(Exception):
    """A request that will get no answer."""


class Client:
    """Who waits for an answer, and may leave."""

    def __init__(self):
        self._lock, self._connection, self.is_gone = threading.Lock(), None, False

    def is_on(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._connection = connection
            if self.is_gone:
                self._cut()

    def hang_up(self) -> None:
        with self._lock:
            self.is_gone = True
            self._cut()

    def _cut(self) -> None:
        if self._connection and self._connection.sock:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Answer:
    status: int
    body: dict
    tries: int
    #: Model calls that the last pod did not have to make again, of all pictures.
    spared: int


@dataclass
class Router:
    snapshot_steps: int
    pods: list[Pod] = field(default_factory=list)
    moved: int = 0
    lost: int = 0
    snapshots: int = 0
    #: By status, of those that sent a request elsewhere.
    refusals: Counter = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _load: Counter = field(default_factory=Counter)

    def add(self, pod: Pod) -> None:
        with self._lock:
            self.pods = [*self.pods, pod]

    def remove(self, pod: Pod) -> None:
        with self._lock:
            self.pods = [other for other in self.pods if other is not pod]

    @property
    def in_flight(self) -> int:
        with self._lock:
            return self._load.total()

    def draw(self, path: str, body: dict, headers: dict, client: Client) -> Answer | None:
        """Until some pod has answered; nothing when the client has left."""
        snapshots: dict[int, bytes] = {}

        def keep(picture: int, snapshot: bytes) -> None:
            snapshots[picture] = snapshot
            with self._lock:
                self.snapshots += 1

        asked = {**headers, frames.SNAPSHOT_STEPS: str(self.snapshot_steps)}
        deaths, tries, spared, until = 0, 0, 0, time.monotonic() + LONGEST
        while time.monotonic() < until and not client.is_gone:
            pod = self._take()
            if pod is None:
                time.sleep(PAUSE)
                continue
            tries, spared = tries + 1, sum(map(frames.step_of, snapshots.values()))
            try:
                outcome = _ask(pod, _Ask(path, body, asked, snapshots, keep), client)
            finally:
                self._give(pod)
            if client.is_gone:
                return None
            match outcome:
                case frames.Finished(status=status, body=answer) if status not in (404, 429, 503):
                    return Answer(status, json.loads(answer), tries, spared)
                case frames.Finished(status=status):
                    self.refusals[status] += 1
                    time.sleep(PAUSE)
                case frames.Moved():
                    self.moved += 1
                case frames.Lost(why=why):
                    deaths += 1
                    self.lost += 1
                    if deaths >= MAX_DEATHS:
                        raise Lost(f"two pods were lost, the last because {why}")
        if client.is_gone:
            return None
        raise Lost(f"no answer within {LONGEST} s")

    def _take(self) -> Pod | None:
        with self._lock:
            alive = [pod for pod in self.pods if pod.is_alive()]
            if not alive:
                return None
            pod = min(alive, key=lambda pod: (self._load[pod.name], random.random()))
            self._load[pod.name] += 1
            return pod

    def _give(self, pod: Pod) -> None:
        with self._lock:
            self._load[pod.name] -= 1


@dataclass
class _Ask:
    path: str
    body: dict
    headers: dict
    snapshots: dict[int, bytes]
    keep: Callable[[int, bytes], None]


def _ask(pod: Pod, ask: _Ask, client: Client) -> frames.Finished | frames.Moved | frames.Lost:
    """Asks one pod once. What breaks before the request is sent is a refusal, for the pod has seen nothing of it."""
    try:
        connection = pod.connect(timeout=SILENCE)
    except OSError:
        return frames.Finished(503, b"")
    try:
        client.is_on(connection)
        sent, kind, path = json.dumps(ask.body).encode(), "application/json", ask.path
        if ask.snapshots:
            sent, kind, path = frames.hand_over(ask.path, sent, ask.snapshots), frames.MEDIA_TYPE, HAND_OVER
        connection.request("POST", path, sent, {**ask.headers, "content-type": kind})
        answer = connection.getresponse()
        if answer.getheader("content-type") != frames.MEDIA_TYPE:
            return frames.Finished(answer.status, answer.read())
        return frames.outcome(answer.read, ask.keep)
    except (OSError, http.client.HTTPException) as error:
        return frames.Lost(f"{type(error).__name__}: {error}")
    finally:
        connection.close()
