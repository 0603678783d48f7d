"""Writes the editing model as one folder in the layout of diffusers' StableDiffusionInstructPix2PixPipeline, in fp16."""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline

import architecture
import captions
import edit_pairs
import words
from export import digest, tidy

LIMIT_BYTES = 10_000_000


def assemble(work: Path, base: Path, name: str) -> StableDiffusionInstructPix2PixPipeline:
    tokenizer, _ = edit_pairs.extend_tokenizer(base / "tokenizer")
    captions.tokenize(tokenizer, [""])  # so that its file names the length to fill up and to cut at
    text = architecture.text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    unet = architecture.edit_unet()
    state = torch.load(work / f"{name}.pt", weights_only=True)
    text.load_state_dict(state["ema_text"])
    unet.load_state_dict(state["ema_unet"])
    return StableDiffusionInstructPix2PixPipeline(
        vae=AutoencoderKL.from_pretrained(work / "edit_vae"), text_encoder=text, tokenizer=tokenizer, unet=unet,
        scheduler=architecture.sampler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=Path("../emoji"), help="the model whose words it started from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="edit", help="which checkpoint")
    args = parser.parse_args()
    pipeline = assemble(args.work, args.base, args.name).to(torch.float16)
    shutil.rmtree(args.out, ignore_errors=True)
    pipeline.save_pretrained(args.out, safe_serialization=True)
    words.write(args.out / "tokenizer", edit_pairs.instructions())
    tidy(args.out)
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    for part in ("vae", "unet", "text_encoder"):
        print(f"{part}: {architecture.parameters(getattr(pipeline, part)) / 1e6:.2f} M parameters")
    print(f"{size / 1e6:.2f} MB\ndigest {digest(args.out)}")
    if size > LIMIT_BYTES:
        raise SystemExit(f"more than {LIMIT_BYTES} bytes")


if __name__ == "__main__":
    main()
