"""Writes the trained parts as one folder in the layout of diffusers' StableDiffusionPipeline, in fp16.

With --epoch, that of the three kept ones; its steps and digest are entered into `../epochs.json`.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

import architecture
import captions
import words
from diffusion import EPOCHS

LIMIT_BYTES = 16_000_000
# Where the parts were read from is nobody's business.
LEFT_OUT = ("_name_or_path", "is_local", "local_files_only")


def assemble(work: Path, name: str) -> tuple[StableDiffusionPipeline, int]:
    """The model of a checkpoint, and the checkpoint's step."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    text = architecture.text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    unet = architecture.unet()
    state = torch.load(work / f"{name}.pt", weights_only=True)
    text.load_state_dict(state["ema_text"])
    unet.load_state_dict(state["ema_unet"])
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"), text_encoder=text, tokenizer=tokenizer, unet=unet,
        scheduler=architecture.sampler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipeline, state["step"]


def tidy(folder: Path) -> None:
    for config in folder.rglob("*.json"):
        if config.name not in ("tokenizer.json", "known_words.json"):
            kept = {k: v for k, v in json.loads(config.read_text()).items() if k not in LEFT_OUT}
            config.write_text(json.dumps(kept, indent=2) + "\n")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # a server reads it as another user


def digest(folder: Path) -> str:
    """`cd folder && find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`"""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: str(p.relative_to(folder)).encode())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def note(path: Path, epoch: str, step: int, found: str) -> None:
    epochs = json.loads(path.read_text()) if path.exists() else {}
    epochs[epoch] = {"step": step, "digest": f"sha256:{found}"}
    path.write_text(json.dumps({name: epochs[name] for name in EPOCHS if name in epochs}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="diffusion", help="which checkpoint")
    parser.add_argument("--epoch", choices=EPOCHS, help="which of those kept on the way, instead of the latest")
    parser.add_argument("--epochs", type=Path, default=Path("../epochs.json"), help="where to enter the epoch's digest")
    args = parser.parse_args()
    pipeline, step = assemble(args.work, f"{args.name}-{args.epoch}" if args.epoch else args.name)
    pipeline.to(torch.float16)
    shutil.rmtree(args.out, ignore_errors=True)
    pipeline.save_pretrained(args.out, safe_serialization=True)
    words.write(args.out / "tokenizer", captions.Captions(captions.load_meta(args.work)).all())
    tidy(args.out)
    weights = sum(p.stat().st_size for p in args.out.rglob("*.safetensors"))
    for part in ("vae", "unet", "text_encoder"):
        print(f"{part}: {architecture.parameters(getattr(pipeline, part)) / 1e6:.2f} M parameters")
    found = digest(args.out)
    print(f"step {step}\nweights {weights / 1e6:.2f} MB\ndigest {found}")
    if args.epoch:
        note(args.epochs, args.epoch, step, found)
    if weights > LIMIT_BYTES:
        raise SystemExit(f"more than {LIMIT_BYTES} bytes of weights")


if __name__ == "__main__":
    main()
