"""Draws the goldens: tiny Stable Diffusion checkpoints with random weights, and what diffusers computes with them.

Offline; see README.md for the versions. Running it again with those versions gives the same files.
"""

import json
import pathlib
import shutil

import PIL.Image
import samplers
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

import controlnet
import flux
import img2img
import sd3
import sdxl
from parts import PROMPTS, text_encoder, train_bpe, unet, vae

HERE = pathlib.Path(__file__).resolve().parent


def sd1():
    """Stable Diffusion 1's choices: quick_gelu, convolutions around attention, epsilon, a PNDM schedule."""
    vocab, merges = train_bpe(40)
    return StableDiffusionPipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=77),
        text_encoder=text_encoder(vocab, "quick_gelu", 77),
        unet=unet(
            block_out_channels=(16, 24),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=4,
        ),
        vae=vae([8, 16, 16]),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd2():
    """Stable Diffusion 2's choices: gelu, linear layers around attention, heads by stage, v_prediction, `!` as padding."""
    vocab, merges = train_bpe(60)
    tokenizer = CLIPTokenizer(vocab, merges, model_max_length=24, pad_token="!")
    return StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder(vocab, "gelu", 24),
        unet=unet(
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            attention_head_dim=[2, 4, 4, 8],
            use_linear_projection=True,
        ),
        vae=vae([8, 8, 16]),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def edit4():
    """InstructPix2Pix as of 2022: 4 + 4 channels, Euler's schedule, epsilon, every time from its offset 0."""
    vocab, merges = train_bpe(40)
    return StableDiffusionInstructPix2PixPipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=24),
        text_encoder=text_encoder(vocab, "quick_gelu", 24),
        unet=unet(
            in_channels=8,
            block_out_channels=(16, 24),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=4,
        ),
        vae=vae([8, 16, 16]),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def edit16():
    """As our own editing model: 16 + 16 channels, v_prediction, DDIM with an offset, and a VAE without `quant_conv`."""
    vocab, merges = train_bpe(60)
    return StableDiffusionInstructPix2PixPipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=24),
        text_encoder=text_encoder(vocab, "gelu", 24),
        unet=unet(
            in_channels=32,
            out_channels=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            attention_head_dim=[2, 4],
        ),
        vae=vae([8, 8, 16, 16], latent_channels=16, scaling_factor=0.7, use_quant_conv=False),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def age(folder):
    """Rewrites a checkpoint as exports of 2022 look.

    `text_model.` prefix, vocab.json and merges.txt, old VAE names, no word on spacing (so each sampler has its own).
    """
    path = folder / "text_encoder/model.safetensors"
    weights = {f"text_model.{key}": value for key, value in load_file(path).items()}
    length = weights["text_model.embeddings.position_embedding.weight"].shape[0]
    weights["text_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(weights, path, {"format": "pt"})

    tokenizer = folder / "tokenizer/tokenizer.json"
    model = json.loads(tokenizer.read_text())["model"]
    (folder / "tokenizer/vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    tokenizer.unlink()

    path = folder / "vae/diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = load_file(path)
    for new, old in names.items():
        weights = {key.replace(new, old): value for key, value in weights.items()}
    save_file(weights, path, {"format": "pt"})

    path = folder / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text())
    del config["timestep_spacing"], config["prediction_type"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def run(pipe, sampler, seed, size):
    """Four steps with guidance: first noise, latents after each step, picture in 0..1."""
    # DDIM's default clips to -1..1, which is for pixels; StableDiffusionPipeline turns it off for schedulers that it loads.
    pipe.scheduler = sampler.from_config(pipe.scheduler.config, clip_sample=False)
    record = {}

    def keep(_pipe, step, _time, tensors):
        record[f"latents.{step}"] = tensors["latents"].clone()
        return tensors

    record["image"] = pipe(
        PROMPTS[0],
        negative_prompt="red apple",
        num_inference_steps=4,
        guidance_scale=3.0,
        width=size[0],
        height=size[1],
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


def picture(size):
    """RGB bytes that are easily made again: two gradients and a checker."""
    y, x = torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing="ij")
    channels = [x * 255 // (size[0] - 1), y * 255 // (size[1] - 1), (x // 8 + y // 8) % 2 * 200 + 20]
    return torch.stack(channels, -1).to(torch.uint8)


def edit(pipe, sampler, image, guidance):
    """Four steps of an edit: latents after each step, picture in 0..1."""
    pipe.scheduler = sampler.from_config(pipe.scheduler.config, clip_sample=False)
    record = {}

    def keep(_pipe, step, _time, tensors):
        record[f"latents.{step}"] = tensors["latents"].clone()
        return tensors

    record["image"] = pipe(
        PROMPTS[0],
        image=image,
        negative_prompt="red apple",
        num_inference_steps=4,
        guidance_scale=guidance[0],
        image_guidance_scale=guidance[1],
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


@torch.no_grad()
def edits(pipe, size):
    out = {"picture": picture(size)}
    image = PIL.Image.fromarray(out["picture"].numpy())
    # What the pipeline itself makes of a picture: -1..1, then the mode, unscaled.
    out["encoded"] = pipe.vae.encode(pipe.image_processor.preprocess(image)).latent_dist.mode()
    length = pipe.tokenizer.model_max_length
    tokens = pipe.tokenizer(PROMPTS[:3], padding="max_length", max_length=length, return_tensors="pt", truncation=True)
    channels = pipe.unet.config.in_channels
    generator = torch.Generator().manual_seed(11)
    out["sample"] = torch.randn(3, channels, *out["encoded"].shape[2:], generator=generator)
    out["text"] = pipe.text_encoder(tokens.input_ids)[0]
    out["times"] = torch.tensor([801, 41, 401])
    out["unet"] = pipe.unet(out["sample"], out["times"], out["text"]).sample
    runs = [("ddim", DDIMScheduler, (3.0, 1.5)), ("euler", EulerDiscreteScheduler, (3.0, 1.5))]
    for name, sampler, guidance in [*runs, ("plain", DDIMScheduler, (1.0, 1.5))]:
        out |= {f"{name}.{key}": value for key, value in edit(pipe, sampler, image, guidance).items()}
    return {key: value.contiguous() for key, value in out.items()}


@torch.no_grad()
def goldens(pipe, size):
    out = {}
    length = pipe.tokenizer.model_max_length
    out["tokens"] = pipe.tokenizer(
        PROMPTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    out["text"] = pipe.text_encoder(out["tokens"])[0]
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    generator = torch.Generator().manual_seed(11)
    out["sample"] = torch.randn(2, 4, size[1] // factor, size[0] // factor, generator=generator)
    out["times"] = torch.tensor([801, 41])
    out["unet"] = pipe.unet(out["sample"], out["times"], out["text"][:2]).sample
    out["decoded"] = pipe.vae.decode(out["sample"][:1] / pipe.vae.config.scaling_factor).sample
    for name, sampler in [("ddim", DDIMScheduler), ("euler", EulerDiscreteScheduler)]:
        out |= {f"{name}.{key}": value for key, value in run(pipe, sampler, 7, size).items()}
    return {key: value.contiguous() for key, value in out.items()}


BETAS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_snr": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
    },
}


def schedules():
    """alphas, timesteps and sigmas of every beta schedule and spacing; 7 and 30 steps do not divide 1000."""
    out = {}
    for name, betas in BETAS.items():
        out[f"{name}.alphas_cumprod"] = DDIMScheduler(**betas).alphas_cumprod
        for spacing in ["leading", "linspace", "trailing"]:
            for steps in [1, 4, 7, 30]:
                key = f"{name}.{spacing}.{steps}"
                ddim = DDIMScheduler(**betas, timestep_spacing=spacing, steps_offset=1)
                ddim.set_timesteps(steps)
                euler = EulerDiscreteScheduler(**betas, timestep_spacing=spacing, steps_offset=1)
                euler.set_timesteps(steps)
                out[f"{key}.ddim.timesteps"] = ddim.timesteps
                out[f"{key}.euler.timesteps"] = euler.timesteps
                out[f"{key}.euler.sigmas"] = euler.sigmas
                out[f"{key}.euler.init"] = torch.as_tensor(float(euler.init_noise_sigma)).reshape(1)
    return out


def solver_steps():
    """One step from the middle of a run for every prediction type, with DDIM's clipping and last alpha."""
    generator = torch.Generator().manual_seed(5)
    out = {"sample": torch.randn(1, 4, 4, 4, generator=generator)}
    out["output"] = torch.randn(1, 4, 4, 4, generator=generator)
    for prediction in ["epsilon", "v_prediction", "sample"]:
        for last, clip in [(True, True), (False, False)]:
            ddim = DDIMScheduler(
                **BETAS["scaled_linear"],
                prediction_type=prediction,
                steps_offset=1,
                clip_sample=clip,
                set_alpha_to_one=last,
            )
            ddim.set_timesteps(4)
            for index in [1, 3]:
                step = ddim.step(out["output"], ddim.timesteps[index], out["sample"])
                out[f"ddim.{prediction}.{last}.{index}".lower()] = step.prev_sample
        euler = EulerDiscreteScheduler(**BETAS["scaled_linear"], prediction_type=prediction)
        euler.set_timesteps(4)
        for index, time in enumerate(euler.timesteps):
            scaled = euler.scale_model_input(out["sample"], time)
            out[f"euler.{prediction}.{index}"] = euler.step(out["output"], time, out["sample"]).prev_sample
            out[f"euler.scaled.{index}"] = scaled
    return out


def statistics(tensors):
    def row(tensor):
        values = tensor.double()
        return {
            "shape": list(tensor.shape),
            "mean": round(values.mean().item(), 6),
            "std": round(values.std(correction=0).item(), 6),
            "min": round(values.min().item(), 6),
            "max": round(values.max().item(), 6),
        }

    return {key: row(value) for key, value in sorted(tensors.items())}


def main():
    torch.set_num_threads(1)
    manifest = {"prompts": PROMPTS, "tensors": {}}
    sizes = {"sd1": (64, 48), "sd2": (80, 48)}
    sampler_runs = {}
    for name, make in [("sd1", sd1), ("sd2", sd2)]:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        make().save_pretrained(folder)
        if name == "sd1":
            age(folder)
        # Computed from the files, so that what was renamed is also what diffusers itself reads.
        pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        tensors = goldens(pipe, sizes[name])
        save_file(tensors, HERE / f"{name}.safetensors")
        manifest["tensors"][name] = statistics(tensors)
        sampler_runs |= samplers.runs(name, pipe, sizes[name], PROMPTS)
    for name, make, size in [("edit4", edit4, (64, 48)), ("edit16", edit16, (64, 48))]:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        make().save_pretrained(folder)
        pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        tensors = edits(pipe, size)
        save_file(tensors, HERE / f"{name}.safetensors")
        manifest["tensors"][name] = statistics(tensors)
    for family in [sdxl, sd3, flux, controlnet, img2img]:
        for name, tensors in family.write(HERE).items():
            save_file(tensors, HERE / f"{name}.safetensors")
            manifest["tensors"][name] = statistics(tensors)
    sampler_solvers, files = samplers.solvers()
    (HERE / "sampler_solvers.json").write_text(json.dumps(files, indent=1) + "\n")
    parts = {"schedules": schedules(), "solver_steps": solver_steps()}
    parts |= {"sampler_solvers": sampler_solvers, "sampler_runs": sampler_runs}
    for name, tensors in parts.items():
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, HERE / f"{name}.safetensors")
        manifest["tensors"][name] = statistics(tensors)
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
