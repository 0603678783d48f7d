"""Trains the autoencoder, whitens its latents, and writes `vae/` and `latents.pt`.

The whitening (in each channel mean 0, and variance 1 for a sampled latent) is folded into the two 1x1 convolutions
around the latents: what is saved is a plain AutoencoderKL with a scaling factor of 1.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import architecture
import training

BATCH = 16  # in each process
PEAK_LR = 1.5e-3
# Large enough to keep the latents' noise at roughly a fifth of their spread: a diffusion model never hits a latent
# exactly, and a decoder that has seen noise forgives it.
KL_WEIGHT = 5e-3
POPULAR_SHARE = 0.7  # of each batch; the rest are any emoji, so that edits of unknown pictures survive the round trip
SEED = 1
STEPS = 1800


def load_pictures(work: Path, which: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures in -1..1, (n, 3, 64, 64), and the indices of those that are "popular" or "learned"."""
    pictures = torch.from_numpy(np.load(work / "pictures.npy")).permute(0, 3, 1, 2).float() / 127.5 - 1
    chosen = [i for i, m in enumerate(json.loads((work / "meta.json").read_text())) if m[which]]
    return pictures.contiguous(), torch.tensor(chosen)


def draw_batch(pictures: torch.Tensor, popular: torch.Tensor) -> torch.Tensor:
    known = popular[torch.randint(len(popular), (int(BATCH * POPULAR_SHARE),))]
    others = torch.randint(len(pictures), (BATCH - len(known),))
    batch = pictures[torch.cat([known, others])]
    mirrored = torch.rand(BATCH) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def loss_of(model: AutoencoderKL, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    posterior = model.encode(x).latent_dist
    mean, logvar = posterior.mean, posterior.logvar
    y = model.decode(mean + posterior.std * torch.randn_like(mean)).sample
    mse = (y - x).square().mean()
    coarse = sum((F.avg_pool2d(y, k) - F.avg_pool2d(x, k)).abs().mean() for k in (2, 4, 8))
    edge = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = (y - x).abs().mean() + mse + 0.3 * coarse + 0.5 * edge + KL_WEIGHT * kl
    return loss, {"mse": mse.item(), "edge": edge.item(), "kl": kl.item()}


def train(work: Path, course: training.Course) -> AutoencoderKL:
    pictures, popular = load_pictures(work, "popular")
    model = architecture.vae()
    trainee = training.Trainee({"vae": model}, {"vae": PEAK_LR}, weight_decay=1e-4, decay=0.99)
    training.run(trainee, course, work / "vae.pt", lambda _step: loss_of(model, draw_batch(pictures, popular)))
    return trainee.averages["vae"].eval()


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    posteriors = [model.encode(part).latent_dist for part in pictures.split(64)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


@torch.no_grad()
def whiten(model: AutoencoderKL, latents: torch.Tensor, noise: torch.Tensor) -> None:
    """z' = (z - mean) / std, in the weights: the encoder's last convolution divides, the decoder's first multiplies.

    The variance includes the posterior's noise. A channel that the KL term has silenced is nearly all noise, and so
    stays small; scaled up to 1, it would cost the UNet as much as a channel that the decoder listens to.
    """
    channels = latents.shape[1]
    mean, std = latents.mean((0, 2, 3)), (latents.var((0, 2, 3)) + noise.square().mean((0, 2, 3))).sqrt()
    after, before = model.quant_conv, model.post_quant_conv
    before.bias.add_(before.weight[:, :, 0, 0] @ mean)
    before.weight.mul_(std.view(1, channels, 1, 1))
    after.bias[:channels].sub_(mean).div_(std)
    after.weight[:channels].div_(std.view(channels, 1, 1, 1))
    after.bias[channels:].sub_(2 * std.log())  # the posterior's log variance shrinks alike


@torch.no_grad()
def psnr(model: AutoencoderKL, latents: torch.Tensor, pictures: torch.Tensor) -> float:
    """Mean over pictures, in dB, of what comes back from the latents' means, for channel values in 0..1."""
    qualities = []
    for z, x in zip(latents.split(64), pictures.split(64), strict=True):
        error = (model.decode(z).sample.clamp(-1, 1) - x).div(2).square().mean((1, 2, 3))
        qualities.append(-10 * error.log10())
    return torch.cat(qualities).mean().item()


def finish(work: Path, model: AutoencoderKL, white: bool) -> None:
    pictures, popular = load_pictures(work, "popular")
    _, learned = load_pictures(work, "learned")
    if not white:
        whiten(model, *encode(model, pictures[popular]))
    latents, noise = encode(model, pictures[learned])
    quality = psnr(model, latents, pictures[learned])
    spread = [round(s, 2) for s in latents.std((0, 2, 3)).tolist()]
    correlation = torch.corrcoef(latents.transpose(0, 1).flatten(1)).fill_diagonal_(0).abs().max()
    training.log(work / "vae.log", f"psnr {quality:.2f} dB on {len(learned)} pictures; latent std by "
                 f"channel {spread}, posterior's {[round(s, 2) for s in noise.mean((0, 2, 3)).tolist()]}; "
                 f"largest correlation of two channels {correlation:.2f}")
    model.save_pretrained(work / "vae")
    torch.save(latents, work / "latents.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--trained", type=Path, help="an exported one, to be used as it is")
    args = parser.parse_args()
    training.start(SEED)
    if args.trained:
        model = AutoencoderKL.from_pretrained(args.trained, torch_dtype=torch.float32).eval()
    else:
        model = train(args.work, training.Course(SEED, args.steps, BATCH))
    if training.RANK == 0:
        finish(args.work, model, white=args.trained is not None)


if __name__ == "__main__":
    main()
