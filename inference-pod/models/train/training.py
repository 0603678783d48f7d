"""What every training stage shares: two processes that average gradients, random numbers by step, a clock, an EMA.

Two processes with one thread each beat one process with two threads by far when the cores are shared with other
work: threads meet at every operator, processes once a step.
"""

import math
import os
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def start(seed: int) -> None:
    """Joins the other processes that torchrun started, and gives each its own random stream.

    Whatever computes the same sum in another order is refused, so that a run can be repeated to the bit; and bf16 is
    left alone, which processors without it emulate ten times slower.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    if WORLD > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(seed * 1000 + RANK)


def seed_step(seed: int, step: int) -> None:
    """Every random number of a step follows from (seed, step, rank): a resumed run draws what an unbroken one would."""
    torch.manual_seed((seed * 1_000_000 + step) * 16 + RANK)
    random.seed(f"{seed}/{step}/{RANK}")


def shuffled(rows: list[int], seed: int, first: int, count: int) -> list[int]:
    """Places first .. first + count of this process's endless walk over `rows`, each round in another order."""
    walk, place = [], first
    while len(walk) < count:
        lap, at = divmod(place, len(rows))
        order = random.Random(f"{seed}/{lap}/{RANK}").sample(rows, len(rows))
        part = order[at : at + count - len(walk)]
        walk += part
        place += len(part)
    return walk


def same_weights(*modules: torch.nn.Module) -> None:
    if WORLD > 1:
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    if WORLD > 1:
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= WORLD
        for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))


def agree(value: float) -> float:
    """Rank 0's value, everywhere: processes must stop, and change the learning rate, at the same step."""
    if WORLD == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(box, 0)
    return box.item()


class Clock:
    """Minutes of training so far; a resumed run goes on where the saved one stopped."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.minutes, self.spent, self.since = minutes, spent, time.monotonic()

    def elapsed(self) -> float:
        return self.spent + (time.monotonic() - self.since) / 60

    def progress(self) -> float:
        return min(1.0, agree(self.elapsed()) / self.minutes)


def learning_rate(peak: float, step: int, progress: float, warmup: int = 100) -> float:
    """Linear warm-up in steps, then a cosine down to 2 % at progress 1."""
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def ema_update(ema: torch.nn.Module, module: torch.nn.Module, step: int, decay: float = 0.998) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(module.parameters()), 1 - decay)


def save(path: Path, **state) -> None:
    """Replaces the checkpoint in one move, so that a killed run never leaves half a file."""
    if RANK == 0:
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)


def load(path: Path) -> dict | None:
    return torch.load(path, weights_only=True) if path.exists() else None


def log(path: Path, line: str) -> None:
    if RANK == 0:
        print(line, flush=True)
        with path.open("a") as file:
            file.write(line + "\n")
