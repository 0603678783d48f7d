"""Trains the editing model, as InstructPix2Pix was: the UNet sees the noisy latents and, beside them, the picture's.

Reads `edit_latents.pt`, `edit_meta.json` and the default model's tokenizer and text encoder; writes `edit.pt`, from
which `edit_export.py` makes a model at any time, and from which a stopped run goes on.
"""

import argparse
import copy
from pathlib import Path

import torch
from transformers import CLIPTextModel

import architecture
import captions
import edit_pairs
import training

BATCH = 32  # in each process
PEAK_LR = {"unet": 1.2e-3, "text": 3e-4}
CHECKPOINT_EVERY = 100
# Left out together, or one of both, so that guidance can lead away from either.
DROP_TEXT, DROP_IMAGE, DROP_BOTH = 0.05, 0.05, 0.05
NOISY_FROM, NOISY_SHARE = 600, 0.5  # where it is decided what becomes of the picture
MIRRORED = 0.3


def text_encoder(folder: Path, size: int, spelled: list[list[int]]) -> CLIPTextModel:
    """The default model's, with a row for each new token: the mean of those that it stands for."""
    model = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32).train()
    old = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for row, numbers in enumerate(spelled, start=len(old)):
            model.get_input_embeddings().weight[row] = old[numbers].mean(0)
    return model


class Trainee:
    def __init__(self, start: Path):
        self.tokenizer, spelled = edit_pairs.extend_tokenizer(start / "tokenizer")
        self.unet, self.text = architecture.edit_unet(), text_encoder(start, len(self.tokenizer), spelled)
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

    def update(self, loss: torch.Tensor, steps: int) -> None:
        loss.backward()
        training.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate(group["peak"], self.step, self.step / steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        training.ema_update(self.ema_unet, self.unet, self.step)
        training.ema_update(self.ema_text, self.text, self.step)


def draw_timesteps(count: int) -> torch.Tensor:
    spread = (torch.arange(count) + torch.rand(count)) / count  # stratified: every batch sees all noise levels
    noisy = torch.rand(count) < NOISY_SHARE
    return torch.where(noisy, NOISY_FROM + spread * (1000 - NOISY_FROM), spread * 1000).long().clamp(0, 999)


def draw_batch(pairs: list[edit_pairs.Pair], latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Pictures, what they become, and the instructions; of some, the picture or the words left out."""
    mirrored = ((torch.rand(len(pairs)) < MIRRORED) & torch.tensor([p.may_mirror for p in pairs])).long()
    source = latents[mirrored, [p.source for p in pairs]]
    target = latents[mirrored, [p.target for p in pairs]]
    chance = torch.rand(len(pairs))
    no_text = chance < DROP_TEXT + DROP_BOTH
    no_image = (chance >= DROP_TEXT) & (chance < DROP_TEXT + DROP_BOTH + DROP_IMAGE)
    texts = ["" if left_out else p.instruction for p, left_out in zip(pairs, no_text.tolist(), strict=True)]
    return source * ~no_image.view(-1, 1, 1, 1), target, texts


def loss_of(trainee: Trainee, source: torch.Tensor, target: torch.Tensor, texts: list[str], alphas: torch.Tensor):
    """The v-prediction loss, and its part from the noisy steps, where the edit is decided."""
    t = draw_timesteps(len(target))
    signal, noise_level = (a.view(-1, 1, 1, 1) for a in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
    noise = torch.randn_like(target)
    states = trainee.text(captions.tokenize(trainee.tokenizer, texts)).last_hidden_state
    v = trainee.unet(torch.cat([signal * target + noise_level * noise, source], 1), t, states).sample
    errors = (v - (signal * noise - noise_level * target)).square().mean((1, 2, 3))
    return errors.mean(), errors.detach()[t >= 900].mean().item()


def train(work: Path, start: Path, steps: int, first: int | None, path: Path) -> None:
    pairs, latents = edit_pairs.Pairs(edit_pairs.load_meta(work)), torch.load(work / "edit_latents.pt", weights_only=True)
    if first:
        pairs.rows = {kind: rows[:: len(rows) // first] for kind, rows in pairs.rows.items()}
    alphas = architecture.sampler().alphas_cumprod.float()
    trainee = Trainee(start)
    trainee.resume(path)
    losses = []
    while trainee.step < steps:
        training.seed_step(5, trainee.step)
        batch = draw_batch([pairs.draw() for _ in range(BATCH)], latents)
        loss, noisy = loss_of(trainee, *batch, alphas)
        trainee.update(loss, steps)
        losses.append((loss.item(), noisy))
        if trainee.step % 25 == 0:
            mean, noisy = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            training.log(path.with_suffix(".log"), f"step {trainee.step} images {trainee.step * BATCH * training.WORLD} "
                         f"loss {mean:.4f} noisy {noisy:.4f}")
            losses.clear()
        if trainee.step % CHECKPOINT_EVERY == 0 or trainee.step == steps:
            trainee.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=Path("../emoji"), help="the model whose words to start from")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--first", type=int, help="learn only that many pairs of a kind: they must be right within minutes")
    parser.add_argument("--name", default="edit", help="of the checkpoint and the log")
    args = parser.parse_args()
    training.start(seed=5)
    train(args.work, args.base, args.steps, args.first, args.work / f"{args.name}.pt")


if __name__ == "__main__":
    main()
