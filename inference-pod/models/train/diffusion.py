"""Trains the UNet and the text encoder together on the whitened latents; keeps their moving averages.

Reads `latents.pt`, `tokenizer/` and `text_encoder/`; writes `diffusion.pt`, from which `export.py` makes a model at any
time, and from which a stopped run goes on. It stops after a fixed number of steps, and what a step draws follows from
its number alone, so a second run gives the same bits, stopped on the way or not. Three steps on the way are kept as
epochs: `diffusion-early.pt`, `diffusion-middle.pt`, `diffusion-last.pt`.
"""

import argparse
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

import architecture
import captions
import noising
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


def rows_of(draws: captions.Captions, step: int, steps: int, first: int | None) -> list[int]:
    turn = round(steps * POPULAR_SHARE)
    only_popular = step < turn
    rows = [row for row in draws.rows(only_popular) if first is None or row < first]
    return training.shuffled(rows, SEED + only_popular, (step if only_popular else step - turn) * BATCH, BATCH)


def train(work: Path, course: training.Course, first: int | None, path: Path) -> None:
    tokenizer, draws = CLIPTokenizer.from_pretrained(work / "tokenizer"), captions.Captions(captions.load_meta(work))
    latents = torch.load(work / "latents.pt", weights_only=True)
    alphas = architecture.sampler().alphas_cumprod.float()
    networks = {"unet": architecture.unet(), "text": CLIPTextModel.from_pretrained(work / "text_encoder").train()}
    trainee = training.Trainee(networks, PEAK_LR)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        batch = rows_of(draws, step, course.steps, first)
        ids = captions.tokenize(tokenizer, [draws.draw(i) for i in batch])
        t = noising.draw_timesteps(len(batch), NOISY_FROM, NOISY_SHARE)
        states = networks["text"](ids).last_hidden_state
        return noising.v_loss(latents[batch], t, alphas, lambda noisy: networks["unet"](noisy, t, states).sample)

    training.run(trainee, course, path, loss_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--stop", type=int, help="after so many steps of them; a later call goes on")
    parser.add_argument("--first", type=int, help="learn only that many pictures: they must be right within minutes")
    parser.add_argument("--name", default="diffusion", help="of the checkpoint and the log")
    args = parser.parse_args()
    training.start(seed=SEED)
    epochs = {round(args.steps * share): name for name, share in EPOCHS.items()}
    course = training.Course(SEED, args.steps, BATCH, args.stop, CHECKPOINT_EVERY, epochs=epochs)
    train(args.work, course, args.first, args.work / f"{args.name}.pt")


if __name__ == "__main__":
    main()
