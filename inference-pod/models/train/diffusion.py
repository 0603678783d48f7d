"""Trains the UNet and the text encoder together on the whitened latents; keeps their moving averages.

Reads `latents.pt`, `tokenizer/` and `text_encoder/`; writes `diffusion.pt`, from which `export.py` makes a model at any
time, and from which a stopped run goes on. It stops after a fixed number of steps, and what a step draws follows from
its number alone, so a second run gives the same bits, stopped on the way or not. Three steps on the way are kept as
epochs: `diffusion-early.pt`, `diffusion-middle.pt`, `diffusion-last.pt`.
"""

import argparse
import copy
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

import architecture
import captions
import training

BATCH = 32  # in each process
PEAK_LR = {"unet": 1e-3, "text": 6e-4}
SEED = 3
STEPS = 800
EPOCHS = {"early": 0.1, "middle": 0.35, "last": 1.0}  # of all steps
CHECKPOINT_EVERY = 50
POPULAR_SHARE = 0.7  # of all steps, the first: the popular pictures alone, whose words the head start taught
# Among a few hundred pictures, the noisy latents alone tell which picture it is below about t = 800: only above do the
# words matter. Half of all steps are therefore drawn there. (Min-SNR weights do the opposite, and are left out.)
NOISY_FROM, NOISY_SHARE = 750, 0.5


def draw_timesteps(count: int) -> torch.Tensor:
    spread = (torch.arange(count) + torch.rand(count)) / count  # stratified: every batch sees all noise levels
    noisy = torch.rand(count) < NOISY_SHARE
    t = torch.where(noisy, NOISY_FROM + spread * (1000 - NOISY_FROM), spread * 1000)
    return t.long().clamp(0, 999)


def rows_of(draws: captions.Captions, step: int, steps: int, first: int | None) -> list[int]:
    turn = round(steps * POPULAR_SHARE)
    only_popular = step < turn
    rows = [row for row in draws.rows(only_popular) if first is None or row < first]
    return training.shuffled(rows, SEED + only_popular, (step if only_popular else step - turn) * BATCH, BATCH)


class Trainee:
    """The two networks, their averages, the optimizer, and how to put all of them on disk and back."""

    def __init__(self, work: Path):
        self.unet = architecture.unet()
        self.text = CLIPTextModel.from_pretrained(work / "text_encoder").train()
        training.same_weights(self.unet, self.text)
        self.ema_unet, self.ema_text = copy.deepcopy(self.unet), copy.deepcopy(self.text)
        self.modules = {"unet": self.unet, "text": self.text, "ema_unet": self.ema_unet, "ema_text": self.ema_text}
        self.parameters = [*self.unet.parameters(), *self.text.parameters()]
        groups = [{"params": list(self.modules[k].parameters()), "peak": PEAK_LR[k]} for k in ("unet", "text")]
        self.optimizer = torch.optim.AdamW(groups, lr=0, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.step = 0

    def resume(self, path: Path) -> None:
        if state := training.load(path):
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self, path: Path) -> None:
        training.save(path, optimizer=self.optimizer.state_dict(), step=self.step,
                      **{name: module.state_dict() for name, module in self.modules.items()})

    def update(self, loss: torch.Tensor, progress: float) -> None:
        loss.backward()
        training.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate(group["peak"], self.step, progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        training.ema_update(self.ema_unet, self.unet, self.step)
        training.ema_update(self.ema_text, self.text, self.step)


def loss_of(trainee: Trainee, latents: torch.Tensor, ids: torch.Tensor, alphas: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The v-prediction loss, and its part from the steps where the words decide."""
    t = draw_timesteps(len(latents))
    signal, noise_level = (a.view(-1, 1, 1, 1) for a in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
    noise = torch.randn_like(latents)
    states = trainee.text(ids).last_hidden_state
    v = trainee.unet(signal * latents + noise_level * noise, t, states).sample
    errors = (v - (signal * noise - noise_level * latents)).square().mean((1, 2, 3))
    return errors.mean(), errors.detach()[t >= 900].mean().item()


def train(work: Path, steps: int, stop: int, first: int | None, path: Path) -> None:
    tokenizer, draws = CLIPTokenizer.from_pretrained(work / "tokenizer"), captions.Captions(captions.load_meta(work))
    latents = torch.load(work / "latents.pt", weights_only=True)
    alphas = architecture.sampler().alphas_cumprod.float()
    epochs = {round(steps * share): name for name, share in EPOCHS.items()}
    trainee = Trainee(work)
    trainee.resume(path)
    losses = []
    while trainee.step < min(steps, stop):
        training.seed_step(SEED, trainee.step)
        batch = rows_of(draws, trainee.step, steps, first)
        ids = captions.tokenize(tokenizer, [draws.draw(i) for i in batch])
        loss, noisy = loss_of(trainee, latents[batch], ids, alphas)
        trainee.update(loss, trainee.step / steps)
        losses.append((loss.item(), noisy))
        if trainee.step % 50 == 0:
            mean, noisy = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            training.log(path.with_suffix(".log"), f"step {trainee.step} images {trainee.step * BATCH * training.WORLD} "
                         f"loss {mean:.4f} noisy {noisy:.4f}")
            losses.clear()
        if name := epochs.get(trainee.step):
            trainee.save(path.with_stem(f"{path.stem}-{name}"))
        if trainee.step % CHECKPOINT_EVERY == 0 or trainee.step in (steps, stop):
            trainee.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--stop", type=int, default=STEPS, help="after so many steps of them; a later call goes on")
    parser.add_argument("--first", type=int, help="learn only that many pictures: they must be right within minutes")
    parser.add_argument("--name", default="diffusion", help="of the checkpoint and the log")
    args = parser.parse_args()
    training.start(seed=SEED)
    train(args.work, args.steps, args.stop, args.first, args.work / f"{args.name}.pt")


if __name__ == "__main__":
    main()
