"""Makes the tokenizer and gives the text encoder a start: it learns to guess the picture, 16x16, from the caption.

In the diffusion loss words matter only where noise hides the picture, so binding them takes longest there; here every
example teaches them, and the whole stage costs a minute or two of one core. The guessing head is thrown away.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import architecture
import captions
import training

BATCH, PEAK_LR = 128, 2e-3


def thumbnails(work: Path, learned: list[int]) -> torch.Tensor:
    pictures = torch.from_numpy(np.load(work / "pictures.npy")[learned]).permute(0, 3, 1, 2).float() / 127.5 - 1
    flat = F.avg_pool2d(pictures, 4).flatten(1)
    return (flat - flat.mean(0)) / flat.std()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    args = parser.parse_args()
    if (args.work / "text_encoder").exists():
        return
    training.start(seed=2)
    random.seed(2)
    meta = captions.load_meta(args.work)
    tokenizer, draws = captions.train_tokenizer(meta), captions.Captions(meta)
    popular = torch.tensor([i for i, popular in enumerate(draws.popular) if popular])
    targets = thumbnails(args.work, [i for i, m in enumerate(meta) if m["learned"]])
    model = architecture.text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)  # CLIP's 0.02 is for a far longer training
    head = torch.nn.Linear(architecture.TEXT_WIDTH, targets.shape[1])
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(args.steps):
        optimizer.param_groups[0]["lr"] = training.learning_rate(PEAK_LR, step, step / args.steps)
        rows = popular[torch.randint(len(popular), (BATCH,))]
        ids = captions.tokenize(tokenizer, [draws.draw(i, dropout=0) for i in rows.tolist()])
        loss = (head(model(ids).last_hidden_state[:, -1]) - targets[rows]).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 99:
            training.log(args.work / "text.log", f"step {step + 1} loss {loss.item():.4f}")
    tokenizer.save_pretrained(args.work / "tokenizer")
    model.save_pretrained(args.work / "text_encoder")


if __name__ == "__main__":
    main()
