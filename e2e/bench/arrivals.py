"""Owns requests that come when they come, whoever waits: Poisson arrivals from a seed, and what became of each.
It must not know who serves them; a server is a coroutine that draws one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# Sizes and steps, as likely one as the other.
SIZES = ("64x64", "96x96", "128x128")
STEPS = (5, 10, 20)


@dataclass(frozen=True)
class Asked:
    prompt: str
    size: str
    steps: int
    seed: int


@dataclass(frozen=True)
class Answered:
    asked: Asked
    seconds: float
    drawn: bool


Draw = Callable[[Asked], Awaitable[bool]]


def kinds() -> list[tuple[str, int]]:
    return [(size, steps) for size in SIZES for steps in STEPS]


async def alone(draw: Draw, rounds: int = 3) -> dict[tuple[str, int], float]:
    """The least seconds of each kind while nothing else is asked."""
    seconds = {}
    for size, steps in kinds():
        times = []
        for number in range(rounds + 1):
            answered = await _timed(draw, Asked("a cat", size, steps, number))
            assert answered.drawn, f"{size} with {steps} steps was not drawn"
            times.append(answered.seconds)
        seconds[size, steps] = min(times[1:])
    return seconds


async def storm(draw: Draw, rate: float, seconds: float, seed: int) -> list[Answered]:
    """`rate` a second for so long, the same for every server; waits until all are answered."""
    chance, tasks, began = random.Random(seed), [], time.monotonic()
    at = chance.expovariate(rate)
    while at < seconds:
        asked = Asked(chance.choice(("a cat", "a red car", "a pizza")), chance.choice(SIZES), chance.choice(STEPS), chance.randrange(1 << 31))
        await asyncio.sleep(began + at - time.monotonic())
        tasks.append(asyncio.create_task(_timed(draw, asked)))
        at += chance.expovariate(rate)
    return await asyncio.gather(*tasks)


async def _timed(draw: Draw, asked: Asked) -> Answered:
    began = time.monotonic()
    drawn = await draw(asked)
    return Answered(asked, time.monotonic() - began, drawn)


def good(answers: list[Answered], solo: dict[tuple[str, int], float], slack: float = 3.0) -> float:
    """The share that was drawn within `slack` times what it takes alone."""
    within = [one.drawn and one.seconds <= slack * solo[one.asked.size, one.asked.steps] for one in answers]
    return sum(within) / len(within)


def slowness(answers: list[Answered], solo: dict[tuple[str, int], float], share: float) -> float:
    """So many times what it takes alone did the slowest of this share take."""
    times = sorted(one.seconds / solo[one.asked.size, one.asked.steps] for one in answers if one.drawn)
    return times[min(len(times) - 1, int(share * len(times)))] if times else float("inf")
