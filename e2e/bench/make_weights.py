"""Owns the checkpoint that loading is measured with: Stable Diffusion's shape with half the channels, random weights, 1.0 GB.
Run by the peers' interpreter: `make_weights.py FOLDER TOKENIZER`. It must not measure anything."""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

TEXT = 256  # SD 1.5: 768
CLASSES = {"scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
           "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


def main(folder: Path, tokenizer: Path) -> None:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(sample_size=64, block_out_channels=(160, 320, 640, 640), layers_per_block=2, cross_attention_dim=TEXT)
    vae = AutoencoderKL(block_out_channels=(64, 128, 256, 256), down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2)
    text = CLIPTextModel(CLIPTextConfig(hidden_size=TEXT, intermediate_size=4 * TEXT, num_attention_heads=4, num_hidden_layers=6,
                                        bos_token_id=0, eos_token_id=1, pad_token_id=1))
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        module.save_pretrained(folder / name)
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    schedule.save_pretrained(folder / "scheduler")
    shutil.copytree(tokenizer, folder / "tokenizer")
    index(folder)


def index(folder: Path) -> None:
    absent = {"feature_extractor": [None, None], "image_encoder": [None, None], "safety_checker": [None, None]}
    content = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", **CLASSES, **absent, "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
