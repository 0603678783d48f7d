"""What every training stage shares: the loop, two processes that average gradients, random numbers by step, an EMA.

Knows nothing of pictures or words: a stage brings networks and a loss. Two processes with one thread each beat one process with two threads by far when the cores are shared with other
work: threads meet at every operator, processes once a step.
"""

import copy
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
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


def learning_rate(peak: float, step: int, progress: float, warmup: int = 100) -> float:
    """Linear warm-up in steps, then a cosine down to 2 % at progress 1."""
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def ema_update(ema: torch.nn.Module, module: torch.nn.Module, step: int, decay: float = 0.998) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(module.parameters()), 1 - decay)


def log(path: Path, line: str) -> None:
    if RANK == 0:
        print(line, flush=True)
        with path.open("a") as file:
            file.write(line + "\n")


class Trainee:
    """Networks that learn together, their moving averages, the optimizer, and how to put all of them on disk and back."""

    def __init__(self, networks: dict[str, torch.nn.Module], peaks: dict[str, float], weight_decay: float = 0.01,
                 decay: float = 0.998):
        self.networks, self.decay, self.step = networks, decay, 0
        same_weights(*networks.values())
        self.averages = {name: copy.deepcopy(network) for name, network in networks.items()}
        self.parameters = [p for network in networks.values() for p in network.parameters()]
        groups = [{"params": list(networks[name].parameters()), "peak": peak} for name, peak in peaks.items()]
        self.optimizer = torch.optim.AdamW(groups, lr=0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)

    def modules(self) -> dict[str, torch.nn.Module]:
        return self.networks | {f"ema_{name}": average for name, average in self.averages.items()}

    def resume(self, path: Path) -> None:
        if path.exists():
            state = torch.load(path, weights_only=True)
            for name, module in self.modules().items():
                module.load_state_dict(state[name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self, path: Path) -> None:
        """Replaces the checkpoint in one move, so that a killed run never leaves half a file."""
        if RANK == 0:
            part = path.with_suffix(".part")
            states = {name: module.state_dict() for name, module in self.modules().items()}
            torch.save(states | {"optimizer": self.optimizer.state_dict(), "step": self.step}, part)
            part.replace(path)

    def update(self, loss: torch.Tensor, progress: float) -> None:
        loss.backward()
        average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], self.step, progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        for name, average in self.averages.items():
            ema_update(average, self.networks[name], self.step, self.decay)


@dataclass(frozen=True)
class Course:
    """How long a stage goes on, and what it keeps on the way."""

    seed: int
    steps: int
    batch: int  # in each process
    stop: int | None = None  # after so many of the steps; a later call goes on
    checkpoint_every: int = 100
    log_every: int = 50
    epochs: dict[int, str] = field(default_factory=dict)  # what to call the checkpoints that are kept after these steps


def run(trainee: Trainee, course: Course, path: Path, loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]]) -> None:
    """Goes on from the checkpoint at `path`. `loss_of(step)` gives the loss and what else is worth a place in the log."""
    trainee.resume(path)
    last = min(course.steps, course.stop or course.steps)
    numbers: list[dict[str, float]] = []
    while trainee.step < last:
        seed_step(course.seed, trainee.step)
        loss, parts = loss_of(trainee.step)
        trainee.update(loss, trainee.step / course.steps)
        numbers.append({"loss": loss.item()} | parts)
        if trainee.step % course.log_every == 0:
            means = " ".join(f"{name} {sum(row[name] for row in numbers) / len(numbers):.4f}" for name in numbers[0])
            log(path.with_suffix(".log"), f"step {trainee.step} images {trainee.step * course.batch * WORLD} {means}")
            numbers.clear()
        if name := course.epochs.get(trainee.step):
            trainee.save(path.with_stem(f"{path.stem}-{name}"))
        if trainee.step % course.checkpoint_every == 0 or trainee.step == last:
            trainee.save(path)
