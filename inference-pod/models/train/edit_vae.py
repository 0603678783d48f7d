"""Tunes the default model's autoencoder to 3D pictures and skin colours, whitens its latents anew, and encodes all.

Reads `edit_pictures.npy` and a trained autoencoder; writes `edit_vae/` and `edit_latents.pt`, (2, pictures, 16, 8, 8):
as they are, and mirrored.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

import training
from architecture import LATENT_CHANNELS, LATENT_SIDE
from vae import encode, loss_of, psnr, whiten

BATCH = 8  # in each process
PEAK_LR = 4e-4
SEED = 4
LATENT_SHAPE = (LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)


class Pictures:
    def __init__(self, work: Path):
        self.bytes = torch.from_numpy(np.load(work / "edit_pictures.npy")).permute(0, 3, 1, 2)
        meta = json.loads((work / "edit_meta.json").read_text())
        self.held_out = torch.tensor([i for i, m in enumerate(meta) if m["held_out"]])
        free = [(i, m) for i, m in enumerate(meta) if not m["held_out"]]
        # Equal parts of each style, and within it of plain and of coloured pictures.
        self.parts = [torch.tensor([i for i, m in free if (m["style"], m["tone"] > 0) == part])
                      for part in (("flat", False), ("flat", True), ("3d", False), ("3d", True))]

    def __getitem__(self, rows) -> torch.Tensor:
        return self.bytes[rows].float() / 127.5 - 1

    def draw(self) -> torch.Tensor:
        rows = torch.cat([part[torch.randint(len(part), (BATCH // len(self.parts),))] for part in self.parts])
        mirrored = torch.rand(len(rows)) < 0.5
        return torch.where(mirrored.view(-1, 1, 1, 1), self[rows].flip(3), self[rows])


def train(work: Path, start: Path, course: training.Course) -> AutoencoderKL:
    pictures, model = Pictures(work), AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32).train()
    trainee = training.Trainee({"vae": model}, {"vae": PEAK_LR}, weight_decay=1e-4, decay=0.99)
    training.run(trainee, course, work / "edit_vae.pt", lambda _step: loss_of(model, pictures.draw()))
    return trainee.averages["vae"].eval()


@torch.no_grad()
def finish(work: Path, model: AutoencoderKL) -> None:
    pictures = Pictures(work)
    sample = torch.cat([part[:: max(1, len(part) // 150)] for part in pictures.parts])
    whiten(model, *encode(model, pictures[sample]))
    for name, rows in (("trained", sample), ("held out", pictures.held_out[::3])):
        latents, noise = encode(model, pictures[rows])
        quality = psnr(model, latents, pictures[rows])
        training.log(work / "edit_vae.log", f"{name}: psnr {quality:.2f} dB on {len(rows)} pictures; "
                     f"latents' std {latents.std():.2f}, posterior's {noise.mean():.2f}")
    model.save_pretrained(work / "edit_vae")


@torch.no_grad()
def encode_all(work: Path) -> None:
    model, pictures = AutoencoderKL.from_pretrained(work / "edit_vae").eval(), Pictures(work)
    latents = torch.empty(2, len(pictures.bytes), *LATENT_SHAPE)
    for rows in torch.arange(len(pictures.bytes)).split(64):
        x = pictures[rows]
        latents[0, rows], latents[1, rows] = model.encode(x).latent_dist.mode(), model.encode(x.flip(3)).latent_dist.mode()
    torch.save(latents, work / "edit_latents.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vae", type=Path, default=Path("../emoji/vae"), help="the autoencoder to start from")
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args()
    training.start(SEED)
    model = train(args.work, args.vae, training.Course(SEED, args.steps, BATCH))
    if training.RANK == 0:
        finish(args.work, model)
        encode_all(args.work)


if __name__ == "__main__":
    main()
