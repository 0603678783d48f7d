"""Owns what the engine's soak knows of its requests: each answered once, by the right picture, or given up by its client.
It must not know pods or sockets."""

import base64
import io
import threading
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image, ImageChops

from engine.requests import Patience, Request

#: Of 255: what another batch may change in a pixel by rounding.
TOLERANCE = 1


@dataclass
class Ledger:
    """Shared by all clients; every method takes the lock."""

    ends: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    #: Pixels' greatest difference between two answers to one drawing.
    worst: int = 0
    resumed: int = 0
    #: Model calls that were not made twice.
    spared: int = 0
    tries: int = 0
    _answered: set[str] = field(default_factory=set)
    _pictures: dict[int, list[Image.Image]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, request: Request, status: int, body: dict, tries: int, spared: int) -> None:
        with self._lock:
            self.tries += tries
            self.resumed += spared > 0
            self.spared += spared
            if request.id in self._answered:
                self.problems.append(f"{request.id} was answered twice")
            self._answered.add(request.id)
            if status == 200:
                self.ends["drawn"] += 1
                self._compare(request, [_pixels(entry) for entry in body["data"]])
            elif status == 409 and request.patience is Patience.CANCELS:
                self.ends["cancelled"] += 1
            else:
                self.ends[f"status {status}"] += 1
                self.problems.append(f"{request.id}: {status} {body}")

    def hung_up(self, request: Request) -> None:
        with self._lock:
            self.ends["hung up"] += 1
            self._answered.add(request.id)

    def lost(self, request: Request, why: str) -> None:
        with self._lock:
            self.ends["lost"] += 1
            self.problems.append(f"{request.id} was lost: {why}")

    def _compare(self, request: Request, pictures: list[Image.Image]) -> None:
        wanted = request.drawing.body["n"]
        if len(pictures) != wanted:
            self.problems.append(f"{request.id}: {len(pictures)} pictures instead of {wanted}")
            return
        first = self._pictures.setdefault(request.drawing.number, pictures)
        for one, other in zip(first, pictures, strict=True):
            apart = max(high for _, high in ImageChops.difference(one, other).getextrema())
            self.worst = max(self.worst, apart)
            if apart > TOLERANCE:
                self.problems.append(f"{request.id}: {apart} of 255 from the first picture of drawing {request.drawing.number}")


def _pixels(entry: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(entry["b64_json"]))).convert("RGB")
