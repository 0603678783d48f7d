"""Tiny ControlNets for the tiny checkpoints, and what diffusers computes with them.

Knows a ControlNet and its pictures; the checkpoints that it steers are those of the other scripts.
"""

import shutil
import tempfile

import PIL.Image
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)

from parts import PROMPTS, enliven

SIZES = {"sd1": (64, 48), "sd2": (80, 48), "sdxl": (80, 48)}
SCALE = 0.7
# Sampler, guidance, the share of the steps that the ControlNet works in.
RUNS = {
    "sd1": {"ddim": (DDIMScheduler, 3.0, (0.0, 1.0)), "heun": (HeunDiscreteScheduler, 3.0, (0.2, 0.7))},
    "sd2": {"euler": (EulerDiscreteScheduler, 3.0, (0.0, 1.0)), "plain": (DDIMScheduler, 1.0, (0.0, 1.0))},
    "sdxl": {"ddim": (DDIMScheduler, 3.0, (0.0, 0.5)), "euler": (EulerDiscreteScheduler, 3.0, (0.0, 1.0))},
}
# How the ControlNets differ: in the order of colours, and by as few transformer blocks as small ones for XL have.
CONFIGS = {
    "sd1": {"controlnet_conditioning_channel_order": "bgr"},
    "sd2": {},
    "sdxl": {"transformer_layers_per_block": [0, 0, 1]},
}


def controlnet(unet, config):
    """A ControlNet beside this UNet; the VAEs halve twice, so the picture is halved twice too."""
    like = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 12)).config
    model = enliven(ControlNetModel.from_config({**like, **config}), 4)
    # Seven layers of random weights leave little of a picture: a weak one would hide what becomes of it.
    model.controlnet_cond_embedding.conv_out.weight.data *= 8
    return model


def picture(size):
    """RGB bytes that are easily made again: rings as edges are drawn, each channel with its own middle."""
    y, x = torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing="ij")
    rings = [((x - size[0] * part // 4) ** 2 + (y - size[1] // 2) ** 2) // 40 % 3 == 0 for part in (1, 2, 3)]
    return torch.stack(rings, -1).to(torch.uint8) * 255


def run(pipe, image, sampler, guidance, share):
    """Four steps: latents after each, picture in 0..1."""
    pipe.scheduler = sampler.from_config(pipe.scheduler.config, clip_sample=False)
    kept = []

    def keep(_pipe, _step, _time, tensors):
        kept.append(tensors["latents"].clone())
        return tensors

    drawn = pipe(
        PROMPTS[0],
        image=image,
        negative_prompt="red apple",
        num_inference_steps=4,
        guidance_scale=guidance,
        controlnet_conditioning_scale=SCALE,
        control_guidance_start=share[0],
        control_guidance_end=share[1],
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return {"latents": torch.cat(kept), "image": drawn}


@torch.no_grad()
def residuals(pipe, image):
    """What the ControlNet adds to the UNet, and what the UNet makes of it, for a batch at two times."""
    hint = pipe.control_image_processor.preprocess(image)
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    shape = (2, 4, image.height // factor, image.width // factor)
    is_xl = "text_encoder_2" in pipe.components
    read = pipe.encode_prompt(PROMPTS[0], *([None] if is_xl else []), "cpu", 1, False)
    out = {"sample": torch.randn(shape, generator=torch.Generator().manual_seed(11)), "times": torch.tensor([801, 41])}
    out["text"] = read[0].repeat(2, 1, 1)
    added = None
    if is_xl:
        out["pooled"] = read[2].repeat(2, 1)
        out["time_ids"] = torch.tensor([[48.0, 80, 0, 0, 48, 80], [1024, 768, 3, 5, 512, 640]])
        added = {"text_embeds": out["pooled"], "time_ids": out["time_ids"]}
    asked = {"encoder_hidden_states": out["text"], "added_cond_kwargs": added, "return_dict": False}
    down, middle = pipe.controlnet(
        out["sample"], out["times"], controlnet_cond=hint.repeat(2, 1, 1, 1), conditioning_scale=SCALE, **asked
    )
    out["hint"] = pipe.controlnet.controlnet_cond_embedding(
        hint.flip(1) if pipe.controlnet.config.controlnet_conditioning_channel_order == "bgr" else hint
    )
    out |= {f"down.{index}": tensor for index, tensor in enumerate(down)}
    out["mid"] = middle
    out["unet"] = pipe.unet(
        out["sample"],
        out["times"],
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        **asked,
    )[0]
    return out


def pipeline(root, name):
    """The checkpoint of that name with a ControlNet of its own."""
    plain, steered = (StableDiffusionPipeline, StableDiffusionControlNetPipeline)
    if name == "sdxl":
        plain, steered = (StableDiffusionXLPipeline, StableDiffusionXLControlNetPipeline)
    base = plain.from_pretrained(root / name, local_files_only=True)
    parts = dict(base.components, controlnet=controlnet(base.unet, CONFIGS[name]))
    if name == "sdxl":
        return steered(**parts, add_watermarker=False)
    return steered(**parts, requires_safety_checker=False)


def write(root):
    """Writes what the checkpoints have more with a ControlNet; gives the goldens by name."""
    goldens = {}
    for name, runs in RUNS.items():
        pipe = pipeline(root, name)
        pipe.set_progress_bar_config(disable=True)
        folder = root / f"{name}_control"
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as whole:
            pipe.save_pretrained(whole)
            shutil.copytree(f"{whole}/controlnet", folder / "controlnet")
            shutil.copy(f"{whole}/model_index.json", folder)
        out = {"picture": picture(SIZES[name])}
        image = PIL.Image.fromarray(out["picture"].numpy())
        out |= residuals(pipe, image)
        for sampler, how in runs.items():
            out |= {f"{sampler}.{key}": value for key, value in run(pipe, image, *how).items()}
        goldens[f"{name}_control"] = {key: value.contiguous() for key, value in out.items()}
    return goldens
