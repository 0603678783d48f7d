"""Trains the editing model, as InstructPix2Pix was: the UNet sees the noisy latents and, beside them, the picture's.

Reads `edit_latents.pt`, `edit_meta.json` and the default model's tokenizer and text encoder; writes `edit.pt`, from
which `edit_export.py` makes a model at any time, and from which a stopped run goes on.
"""

import argparse
from pathlib import Path

import torch
from transformers import CLIPTextModel

import architecture
import captions
import edit_pairs
import noising
import training

BATCH = 32  # in each process
PEAK_LR = {"unet": 1.2e-3, "text": 3e-4}
SEED = 5
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


def train(work: Path, start: Path, course: training.Course, first: int | None, path: Path) -> None:
    pairs, latents = edit_pairs.Pairs(edit_pairs.load_meta(work)), torch.load(work / "edit_latents.pt", weights_only=True)
    if first:
        pairs.rows = {kind: rows[:: len(rows) // first] for kind, rows in pairs.rows.items()}
    alphas = architecture.sampler().alphas_cumprod.float()
    tokenizer, spelled = edit_pairs.extend_tokenizer(start / "tokenizer")
    networks = {"unet": architecture.edit_unet(), "text": text_encoder(start, len(tokenizer), spelled)}
    trainee = training.Trainee(networks, PEAK_LR)

    def loss_of(_step: int) -> tuple[torch.Tensor, dict[str, float]]:
        source, target, texts = draw_batch([pairs.draw() for _ in range(BATCH)], latents)
        t = noising.draw_timesteps(BATCH, NOISY_FROM, NOISY_SHARE)
        states = networks["text"](captions.tokenize(tokenizer, texts)).last_hidden_state
        return noising.v_loss(target, t, alphas, lambda noisy: networks["unet"](torch.cat([noisy, source], 1), t, states).sample)

    training.run(trainee, course, path, loss_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=Path("../emoji"), help="the model whose words to start from")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--stop", type=int, help="after so many steps of them; a later call goes on")
    parser.add_argument("--first", type=int, help="learn only that many pairs of a kind: they must be right within minutes")
    parser.add_argument("--name", default="edit", help="of the checkpoint and the log")
    args = parser.parse_args()
    training.start(SEED)
    course = training.Course(SEED, args.steps, BATCH, args.stop)
    train(args.work, args.base, course, args.first, args.work / f"{args.name}.pt")


if __name__ == "__main__":
    main()
