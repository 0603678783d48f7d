"""Image-to-image and inpainting with the tiny checkpoints of every family, as diffusers' own pipelines do it.

Knows pictures, masks and strengths; the checkpoints are those of the families' scripts, which must have run before.
"""

import shutil

import diffusers
import numpy
import PIL.Image
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from samplers import SAMPLERS

from parts import PROMPTS, unet

SIZES = {"sd1": (64, 48), "sd2": (80, 48), "sdxl": (80, 48), "sd3": (80, 48), "flux": (80, 48)}
ALL = {"ddim": (DDIMScheduler, {"clip_sample": False}), "euler": (EulerDiscreteScheduler, {})} | SAMPLERS
FEW = {name: ALL[name] for name in ["ddim", "euler_ancestral", "heun"]}
FLOW = {"flow_match_euler": (diffusers.FlowMatchEulerDiscreteScheduler, {})}
# Of five steps: two of them are left out, by flow matching one.
STRENGTH = 0.7
FAMILIES = {
    "sd1": (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, ALL),
    "sd2": (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, FEW),
    "sdxl": (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, FEW),
    "sd3": (StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline, FLOW),
    "flux": (FluxPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FLOW),
}


def picture(size):
    """RGB bytes that are easily made again: two gradients and a checker."""
    y, x = torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing="ij")
    channels = [x * 255 // (size[0] - 1), y * 255 // (size[1] - 1), (x // 8 + y // 8) % 2 * 200 + 20]
    return torch.stack(channels, -1).to(torch.uint8)


def mask(size):
    """255 where the picture shall be drawn anew: an ellipse, whose edge is on no latent's."""
    y, x = torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing="ij")
    inside = ((x - size[0] * 0.6) / 21) ** 2 + ((y - size[1] * 0.45) / 17) ** 2 <= 1
    return (inside * 255).to(torch.uint8)


def run(pipe, size, sampler, strength, wanted=None):
    """Five steps: the latents after each model call, and the picture's bytes, overlaid where there is a mask."""
    kind, more = sampler
    if not isinstance(pipe.scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **({"clip_sample": False} | more))
    image = PIL.Image.fromarray(picture(size).numpy())
    kept = []

    def keep(pipe, _step, _time, tensors):
        latents = tensors["latents"]
        if "Flux" in type(pipe).__name__:
            latents = pipe._unpack_latents(latents, size[1], size[0], pipe.vae_scale_factor)
        kept.append(latents.clone())
        return tensors

    more = {} if wanted is None else {"mask_image": wanted}
    if "Flux" not in type(pipe).__name__:
        more |= {"negative_prompt": "red apple"}
    if not isinstance(pipe, (StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline)):
        more |= {"width": size[0], "height": size[1]}
    # Its decoding forgets the VAE's shift, which that of every other pipeline with one adds.
    forgets = isinstance(pipe, StableDiffusion3InpaintPipeline)
    drawn = pipe(
        PROMPTS[0],
        image=image,
        strength=strength,
        num_inference_steps=5,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        callback_on_step_end=keep,
        output_type="latent" if forgets else "pil",
        **more,
    ).images
    if forgets:
        latents = drawn / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        drawn = pipe.image_processor.postprocess(pipe.vae.decode(latents).sample)
    drawn = drawn[0]
    if wanted is not None:
        drawn = pipe.image_processor.apply_overlay(wanted, image, drawn)
    return torch.cat(kept), torch.from_numpy(numpy.array(drawn))


def of(kind, pipe):
    more = {"requires_safety_checker": False} if "DiffusionXL" not in kind.__name__ else {"add_watermarker": False}
    more = more if "Diffusion3" not in kind.__name__ and "Flux" not in kind.__name__ else {}
    pipe = kind(**pipe.components, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def family(root, name):
    drawing, changing, filling, samplers = FAMILIES[name]
    # What `sd3/` leaves out, and its pipeline asks for.
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    pipe = drawing.from_pretrained(root / name, local_files_only=True, **absent)
    size = SIZES[name]
    out, wanted = {}, PIL.Image.fromarray(mask(size).numpy())
    for sampler, how in samplers.items():
        change = of(changing, pipe)
        latents, image = run(change, size, how, STRENGTH)
        out |= {f"{name}.image_to_image.{sampler}": latents, f"{name}.image_to_image.{sampler}.image": image}
        for part, strength in [("inpaint", STRENGTH), ("inpaint_whole", 1.0)]:
            latents, image = run(of(filling, pipe), size, how, strength, wanted)
            out |= {f"{name}.{part}.{sampler}": latents, f"{name}.{part}.{sampler}.image": image}
    return out


def write_filling(root):
    """Only a UNet that is shown mask and picture, 4 + 1 + 4 channels, to be put into `sd1/`."""
    folder = root / "inpaint9"
    shutil.rmtree(folder, ignore_errors=True)
    pipe = StableDiffusionPipeline.from_pretrained(root / "sd1", local_files_only=True)
    old = {key: pipe.unet.config[key] for key in [
        "block_out_channels", "layers_per_block", "down_block_types", "up_block_types", "attention_head_dim"]}
    pipe.unet = unet(in_channels=9, out_channels=4, **old)
    pipe.unet.save_pretrained(folder / "unet")
    size, out = SIZES["sd1"], {}
    wanted = PIL.Image.fromarray(mask(size).numpy())
    for sampler, how in FEW.items():
        for part, strength in [("inpaint", STRENGTH), ("inpaint_whole", 1.0)]:
            latents, image = run(of(StableDiffusionInpaintPipeline, pipe), size, how, strength, wanted)
            out |= {f"inpaint9.{part}.{sampler}": latents, f"inpaint9.{part}.{sampler}.image": image}
    return out


@torch.no_grad()
def write(root):
    """Writes the one checkpoint that is of this script; gives the goldens by name."""
    out = {}
    for size in sorted(set(SIZES.values())):
        text = "x".join(map(str, size))
        out |= {f"picture.{text}": picture(size), f"mask.{text}": mask(size)}
    for name in FAMILIES:
        out |= family(root, name)
    out |= write_filling(root)
    return {"img2img": {key: value.contiguous() for key, value in out.items()}}
