"""Owns the mix of requests that the engine's soak sends: what is drawn, how often, and what a client does meanwhile.
It must not know pods; everything here is a function of a seed."""

import base64
import random
from dataclasses import dataclass, field
from enum import Enum, auto

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PROMPTS = ("pizza", "red heart", "fire", "rocket", "cat face", "soccer ball", "sun", "crying face")
SAMPLERS = ("ddim", "ddpm", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "unipc", "lcm")
SIZES = ("64x64", "64x96", "96x64")
EDIT_PROMPTS = ("make it dark skin", "in 3D style", "as a woman")
#: Distinct drawings; each is asked for many times, so that every answer can be compared with the first.
DRAWINGS = 60


class Patience(Enum):
    """What the client does with its request."""

    WAITS = auto()
    HANGS_UP = auto()
    CANCELS = auto()


@dataclass(frozen=True)
class Drawing:
    """One thing to draw. Equal drawings must give equal pictures, on whichever pods they were drawn."""

    number: int
    path: str
    body: dict = field(hash=False)


@dataclass(frozen=True)
class Request:
    id: str
    drawing: Drawing
    patience: Patience
    headers: dict = field(hash=False)
    #: Seconds until a client that will not wait acts.
    acts_after: float


def drawings(model: str, editor: str, adapters: list[str], picture: bytes, seed: int) -> list[Drawing]:
    chance = random.Random(seed)
    return [_drawing(number, model, editor, adapters, picture, chance) for number in range(DRAWINGS)]


def requests(of: list[Drawing], count: int, seed: int) -> list[Request]:
    chance = random.Random(seed)
    return [_request(number, chance.choice(of), chance) for number in range(count)]


def _drawing(number: int, model: str, editor: str, adapters: list[str], picture: bytes, chance: random.Random) -> Drawing:
    body = {"model": model, "prompt": chance.choice(PROMPTS), "seed": chance.randrange(1000), "steps": chance.randint(2, 20),
            "size": chance.choice(SIZES), "sampler": chance.choice(SAMPLERS), "n": chance.choice((1, 1, 1, 2)),
            "guidance_scale": chance.choice((1.0, 3.0, 5.0))}
    kind = chance.random()
    if kind < 0.2:  # an edit as it is told
        body |= {"model": editor, "prompt": chance.choice(EDIT_PROMPTS), "size": "64x64", "images": [_data_url(picture)], "sampler": "ddim"}
        return Drawing(number, EDITS, body)
    if kind < 0.35:  # image-to-image
        body |= {"size": "64x64", "images": [_data_url(picture)], "strength": chance.choice((0.4, 0.8)), "sampler": "ddim"}
        return Drawing(number, EDITS, body)
    if adapters and kind < 0.6:
        chosen = chance.sample(adapters, chance.randint(1, 2))
        body |= {"adapters": [{"name": name, "weight": chance.choice((0.5, 1.0))} for name in chosen]}
    return Drawing(number, GENERATIONS, body)


def _request(number: int, drawing: Drawing, chance: random.Random) -> Request:
    patience = chance.choices((Patience.WAITS, Patience.HANGS_UP, Patience.CANCELS), (0.88, 0.06, 0.06))[0]
    headers = {"x-easel-priority": chance.choice(("high", "normal", "normal", "low")), "x-easel-tenant": chance.choice("abc")}
    return Request(f"soak-{number}", drawing, patience, headers, chance.uniform(0.05, 1.5))


def _data_url(picture: bytes) -> dict:
    return {"image_url": "data:image/png;base64," + base64.b64encode(picture).decode()}
