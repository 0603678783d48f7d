"""Adapters (LoRA) for four of the tiny checkpoints in the layouts that trainers write, and what diffusers draws with them.

Reads the checkpoints that `make.py` wrote. Each adapter is a folder with one file, as it is pushed and named.
"""

import json
import pathlib
import shutil

import torch
from diffusers import (
    DDIMScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from make import statistics
from parts import PROMPTS
from safetensors.torch import load_file, save_file

import flux

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE / "lora"
FILE = "pytorch_lora_weights.safetensors"

ATTENTION = [".attn1.to_q", ".attn1.to_v", ".attn2.to_k", ".attn2.to_out.0"]
TEXT = [".self_attn.q_proj", ".self_attn.out_proj", ".mlp.fc1"]
SD1_UNET = [*ATTENTION, ".ff.net.0.proj", ".ff.net.2", ".proj_in", ".proj_out", ".conv1", ".time_emb_proj"]
SD1_UNET += [".conv_shortcut", ".downsamplers.0.conv", "conv_out", "time_embedding.linear_1"]
SDXL_UNET = [*SD1_UNET, ".conv2", ".upsamplers.0.conv", "conv_in", "add_embedding.linear_2"]
SD3 = [".attn.to_q", ".attn.add_k_proj", ".attn.to_add_out", ".attn.to_out.0", ".ff.net.2", ".norm1.linear"]
SD3 += ["context_embedder", "proj_out", "pos_embed.proj"]

FLUX = [".attn.to_q", ".attn.add_v_proj", ".attn.to_out.0", ".proj_mlp", ".proj_out", ".norm.linear", "x_embedder"]


def pairs(model, endings, rank, seed):
    """A and B for every layer whose name ends so, by name; strong enough that a forgotten layer shows."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, module in model.named_modules():
        if not name.endswith(tuple(endings)) or not hasattr(module, "weight"):
            continue
        weight = module.weight
        down = torch.randn(rank, *weight.shape[1:], generator=generator) * weight[0].numel() ** -0.5
        up = torch.randn(weight.shape[0], rank, *[1] * (weight.dim() - 2), generator=generator) * 0.2
        out[name] = (down, up)
    assert out
    return out


def published(part, name):
    """transformers 5 has no `text_model.` in the names of an encoder without a projection; files do."""
    return f"text_model.{name}" if part.startswith("text") and not name.startswith("text_model.") else name


def peft(parts):
    """`unet.….lora_A.weight`, as PEFT names them."""
    out = {}
    for part, layers in parts.items():
        for name, (down, up) in layers.items():
            out[f"{part}.{published(part, name)}.lora_A.weight"] = down
            out[f"{part}.{published(part, name)}.lora_B.weight"] = up
    return out


KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def kohya(parts, alpha, rename=lambda part, name: name):
    """`lora_unet_….lora_down.weight` with an alpha for each, the same for all: diffusers mixes different ones up."""
    out = {}
    for part, layers in parts.items():
        for name, (down, up) in layers.items():
            prefix = KOHYA[part] if len(parts) > 2 or part == "unet" else "lora_te"
            flat = f"{prefix}_{rename(part, published(part, name)).replace('.', '_')}"
            out[f"{flat}.lora_down.weight"] = down
            out[f"{flat}.lora_up.weight"] = up
            out[f"{flat}.alpha"] = torch.tensor(alpha)
    return out


def sgm(part, name):
    """The name of a layer of SDXL's `UNet` in the code that it was published with, which kohya's trainer keeps."""
    if part != "unet":
        return name
    whole = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    if name in whole:
        return whole[name]
    inner = [("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("conv2", "out_layers.3")]
    for ours, theirs in [*inner, ("conv_shortcut", "skip_connection")]:
        name = name.replace(f".{ours}", f".{theirs}")
    stage, *rest = name.split(".")
    per_stage = 2  # one residual block and one change of resolution
    if stage == "mid_block":
        return ".".join(["middle_block", {"resnets0": "0", "attentions0": "1", "resnets1": "2"}["".join(rest[:2])], *rest[2:]])
    block, kind, layer, *rest = rest
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * per_stage}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{int(block) * per_stage + 1}.2.conv"
    number = int(block) * per_stage + int(layer)
    place = {"resnets": "0", "attentions": "1"}[kind]
    if stage == "down_blocks":
        return ".".join(["input_blocks", str(number + 1), place, *rest])
    return ".".join(["output_blocks", str(number), place, *rest])


def write(name, tensors):
    (ROOT / name).mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, ROOT / name / FILE)


def run(pipe, size, adapters):
    """Four steps with the adapters and weights: latents after each, picture in 0..1."""
    pipe.set_adapters(list(adapters), list(adapters.values()))
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
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


def check_loaded(pipe, files):
    """Libraries that do not fit together pass over what they do not recognise."""
    known = [value for file in files for value in file.values()]
    for model in pipe.components.values():
        for key, value in getattr(model, "named_parameters", lambda: [])():
            if ".lora_" in key:
                assert any(torch.equal(value, other) for other in known), f"{key} is not what the file says"


def draw(pipe, name, size, runs):
    pipe.set_progress_bar_config(disable=True)
    adapters = {adapter for run in runs.values() for adapter in run}
    for adapter in sorted(adapters):
        pipe.load_lora_weights(ROOT / f"{name}-{adapter}", adapter_name=adapter, weight_name=FILE)
    check_loaded(pipe, [load_file(ROOT / f"{name}-{adapter}" / FILE) for adapter in adapters])
    out = {}
    for key, wanted in runs.items():
        out |= {f"{name}.{key}.{part}": value for part, value in run(pipe, size, wanted).items()}
    return out


def sd1():
    """PEFT without alphas, and kohya's names with an alpha for each layer; linear layers and convolutions."""
    pipe = StableDiffusionPipeline.from_pretrained(HERE / "sd1", local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    parts = {"unet": pairs(pipe.unet, SD1_UNET, 2, 1), "text_encoder": pairs(pipe.text_encoder, TEXT, 2, 2)}
    write("sd1-ink", peft(parts))
    parts = {"unet": pairs(pipe.unet, [*ATTENTION, ".conv2"], 4, 3), "text_encoder": pairs(pipe.text_encoder, TEXT, 3, 4)}
    write("sd1-wax", kohya(parts, 1.0))
    return draw(pipe, "sd1", (64, 48), {"one": {"ink": 0.8}, "kohya": {"wax": 1.0}, "two": {"ink": 0.8, "wax": -0.5}})


def sdxl():
    """kohya's layout for SDXL: the `UNet`'s names of its first code, both text encoders."""
    pipe = StableDiffusionXLPipeline.from_pretrained(HERE / "sdxl", local_files_only=True, add_watermarker=False)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    parts = {
        "unet": pairs(pipe.unet, SDXL_UNET, 2, 5),
        "text_encoder": pairs(pipe.text_encoder, TEXT, 2, 6),
        "text_encoder_2": pairs(pipe.text_encoder_2, TEXT, 2, 7),
    }
    write("sdxl-wax", kohya(parts, 0.5, sgm))
    return draw(pipe, "sdxl", (80, 48), {"one": {"wax": 0.5}})


def sd3():
    """As `save_lora_weights` writes: alpha and a rank of its own for some layers in the file's metadata."""
    pipe = StableDiffusion3Pipeline.from_pretrained(
        HERE / "sd3", text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    layers = pairs(pipe.transformer, SD3, 2, 8) | pairs(pipe.transformer, [".attn.to_v"], 3, 9)
    encoders = {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    texts = {part: pairs(model, TEXT, 2, 10) for part, model in encoders.items()}
    special = {name: 3 for name in layers if name.endswith(".attn.to_v")}
    config = {"r": 2, "lora_alpha": 3, "rank_pattern": special, "alpha_pattern": {name: 12 for name in special}}
    strip = lambda part, layers: {key.removeprefix(f"{part}."): value for key, value in peft({part: layers}).items()}
    pipe.save_lora_weights(
        ROOT / "sd3-ink",
        transformer_lora_layers=strip("transformer", layers),
        text_encoder_lora_layers=strip("text_encoder", texts["text_encoder"]),
        text_encoder_2_lora_layers=strip("text_encoder_2", texts["text_encoder_2"]),
        transformer_lora_adapter_metadata=config | {"target_modules": list(layers)},
        text_encoder_lora_adapter_metadata={"r": 2, "lora_alpha": 1, "target_modules": list(texts["text_encoder"])},
        text_encoder_2_lora_adapter_metadata={"r": 2, "lora_alpha": 2, "target_modules": list(texts["text_encoder_2"])},
    )
    return draw(pipe, "sd3", (80, 48), {"one": {"ink": 0.5}})


def flux_dev():
    """PEFT for both kinds of blocks and the one text encoder that diffusers changes."""
    pipe = FluxPipeline.from_pretrained(HERE / "flux", local_files_only=True)
    parts = {"transformer": pairs(pipe.transformer, FLUX, 2, 11), "text_encoder": pairs(pipe.text_encoder, TEXT, 2, 12)}
    write("flux-ink", peft(parts))
    pipe.load_lora_weights(ROOT / "flux-ink", adapter_name="ink", weight_name=FILE)
    pipe.set_progress_bar_config(disable=True)
    check_loaded(pipe, [load_file(ROOT / "flux-ink" / FILE)])
    pipe.set_adapters(["ink"], [0.5])
    return {f"flux.one.{part}": value for part, value in flux.run(pipe, 3.5).items()}


def main():
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    tensors = sd1() | sdxl() | sd3() | flux_dev()
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / "lora.safetensors")
    manifest = json.loads((HERE / "manifest.json").read_text())
    manifest["tensors"]["lora"] = statistics(tensors)
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
