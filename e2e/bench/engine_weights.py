"""Owns the checkpoints that engines are measured with: the shapes of Stable Diffusion 1 and 3, narrower, with random weights.
Run by the peers' interpreter: `engine_weights.py FOLDER unet|dit TOKENIZER`. It must not measure anything."""

import json
import sys
from pathlib import Path

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline,
                       StableDiffusionPipeline, UNet2DConditionModel)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TOKENS = 77
VAE = {"block_out_channels": (64, 128, 256, 256), "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
       "layers_per_block": 2}  # half of the original's channels


def text_encoder(kind: type, hidden: int, **more):
    return kind(CLIPTextConfig(hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=hidden // 64, num_hidden_layers=6,
                               bos_token_id=0, eos_token_id=1, pad_token_id=1, **more))


def unet(tokenizer) -> StableDiffusionPipeline:
    model = UNet2DConditionModel(sample_size=64, block_out_channels=(128, 256, 384, 384), layers_per_block=2, cross_attention_dim=512,
                                 attention_head_dim=(2, 4, 6, 6))
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionPipeline(vae=AutoencoderKL(**VAE), text_encoder=text_encoder(CLIPTextModel, 512), tokenizer=tokenizer, unet=model,
                                   scheduler=schedule, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def dit(tokenizer) -> StableDiffusion3Pipeline:
    model = SD3Transformer2DModel(sample_size=64, patch_size=2, in_channels=16, num_layers=8, attention_head_dim=64, num_attention_heads=8,
                                  joint_attention_dim=2048, caption_projection_dim=512, pooled_projection_dim=512 + 768, out_channels=16, pos_embed_max_size=96)
    vae = AutoencoderKL(**VAE, latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False)
    first, second = text_encoder(CLIPTextModelWithProjection, 512, projection_dim=512), text_encoder(CLIPTextModelWithProjection, 768, projection_dim=768)
    return StableDiffusion3Pipeline(transformer=model, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, text_encoder=first,
                                    text_encoder_2=second, text_encoder_3=None, tokenizer=tokenizer, tokenizer_2=tokenizer, tokenizer_3=None)


def main(folder: Path, shape: str, tokenizer: Path) -> None:
    torch.manual_seed(1)
    pipeline = {"unet": unet, "dit": dit}[shape](CLIPTokenizer.from_pretrained(tokenizer, model_max_length=TOKENS))
    pipeline.save_pretrained(folder)
    count = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in pipeline.components.items() if hasattr(part, "parameters")}
    (folder / "parameters.json").write_text(json.dumps(count))  # last: who finds it finds all


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
