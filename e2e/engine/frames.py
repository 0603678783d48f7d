"""Owns the frames between a pod and whoever holds a request for it, as `easel_api::frames` has them.
It must not know pods; a reader is given bytes."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MEDIA_TYPE = "application/vnd.easel.frames"
SNAPSHOT_STEPS = "x-easel-snapshot-steps"
HEAD, REQUEST, BODY, SNAPSHOT, MOVED, END = range(1, 7)
MAX_BODY = 256 << 10


@dataclass
class Finished:
    status: int
    body: bytes


@dataclass
class Moved:
    """The pod goes; what it had of the pictures came before."""


@dataclass
class Lost:
    why: str


def hand_over(path: str, body: bytes, snapshots: dict[int, bytes]) -> bytes:
    """The body of a request that goes on where the snapshots say."""
    parts = [_frame(REQUEST, json.dumps({"path": path, "content_type": "application/json"}).encode())]
    parts += [_frame(BODY, body[at:at + MAX_BODY]) for at in range(0, len(body), MAX_BODY)]
    parts += [_frame(SNAPSHOT, struct.pack(">I", picture) + bytes_) for picture, bytes_ in snapshots.items()]
    return b"".join([*parts, _frame(END, b"")])


def outcome(read: Callable[[int], bytes], keep: Callable[[int, bytes], None]) -> Finished | Moved | Lost:
    """Reads an answer to its end; `keep` is given every snapshot with the number of its picture."""
    status, body = None, b""
    for kind, payload in _frames(read):
        if kind == SNAPSHOT:
            keep(struct.unpack(">I", payload[:4])[0], payload[4:])
        elif kind == HEAD:
            status = json.loads(payload)["status"]
        elif kind == BODY:
            body += payload
        elif kind == MOVED:
            return Moved()
        elif kind == END and status is not None:
            return Finished(status, body)
        else:
            return Lost(f"a frame of kind {kind} is out of its place")
    return Lost("the answer broke off")


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    while len(prefix := read(5)) == 5:
        kind, length = struct.unpack(">BI", prefix)
        if len(payload := read(length)) < length:
            return
        yield kind, payload


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BI", kind, len(payload)) + payload


def step_of(snapshot: bytes) -> int:
    """Model calls that a snapshot is after, as its label says."""
    length = struct.unpack(">I", snapshot[:4])[0]
    return json.loads(snapshot[4:4 + length])["taken"]
