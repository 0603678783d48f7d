"""A tiny Stable Diffusion XL checkpoint, and what diffusers computes with it.

Knows what this family does in its own way; does not know the others.
"""

import shutil

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from parts import PROMPTS, text_encoder, train_bpe, unet, vae

SIZE = (80, 48)
LENGTH = 24


def checkpoint():
    """SDXL's choices: quick_gelu and `<|endoftext|>` as padding first, gelu and `!` second, blocks by stage, text_time."""
    vocab, merges = train_bpe(60)
    second = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "projection_dim": 20}
    return StableDiffusionXLPipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=LENGTH),
        tokenizer_2=CLIPTokenizer(vocab, merges, model_max_length=LENGTH, pad_token="!"),
        text_encoder=text_encoder(vocab, "quick_gelu", LENGTH),
        text_encoder_2=text_encoder(vocab, "gelu", LENGTH, CLIPTextModelWithProjection, 4, **second),
        unet=unet(
            cross_attention_dim=32 + 24,
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=[2, 4, 8],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=20 + 6 * 8,
        ),
        vae=vae([8, 8, 16], scaling_factor=0.13025),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    )


def run(pipe, sampler, guidance, negative):
    """Four steps: latents after each, picture in 0..1."""
    pipe.scheduler = sampler.from_config(pipe.scheduler.config, clip_sample=False)
    record = {}

    def keep(_pipe, step, _time, tensors):
        record[f"latents.{step}"] = tensors["latents"].clone()
        return tensors

    record["image"] = pipe(
        PROMPTS[0],
        negative_prompt=negative,
        num_inference_steps=4,
        guidance_scale=guidance,
        width=SIZE[0],
        height=SIZE[1],
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


@torch.no_grad()
def parts(pipe):
    """Each part alone; the batch of two has prompts, times and micro-conditions of its own."""
    out = {}
    for key, tokenizer in [("tokens", pipe.tokenizer), ("tokens_2", pipe.tokenizer_2)]:
        padded = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        out[key] = tokenizer(PROMPTS, **padded).input_ids
    out["text"], _, out["pooled"], _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    shape = (2, 4, SIZE[1] // factor, SIZE[0] // factor)
    out["sample"] = torch.randn(shape, generator=torch.Generator().manual_seed(11))
    out["times"] = torch.tensor([801, 41])
    out["time_ids"] = torch.tensor([[48.0, 80, 0, 0, 48, 80], [1024, 768, 3, 5, 512, 640]])
    added = {"text_embeds": out["pooled"][:2], "time_ids": out["time_ids"]}
    out["unet"] = pipe.unet(out["sample"], out["times"], out["text"][:2], added_cond_kwargs=added).sample
    out["decoded"] = pipe.vae.decode(out["sample"][:1] / pipe.vae.config.scaling_factor).sample
    return out | tiles(pipe.vae, out["sample"][:1] / pipe.vae.config.scaling_factor)


def tiles(vae, latents):
    """The same latents, and a picture, in tiles of 4 latents, which overlap by 1; the last of a row is 2 wide."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.tile_latent_min_size, vae.tile_sample_min_size = 4, 4 * factor
    vae.enable_tiling()
    pixels = torch.rand((1, 3, *SIZE[::-1]), generator=torch.Generator().manual_seed(13)) * 2 - 1
    out = {"pixels": pixels, "decoded_in_tiles": vae.decode(latents).sample}
    out["moments_in_tiles"] = vae.encode(pixels).latent_dist.parameters
    vae.disable_tiling()
    return out


def write(root):
    """Writes the checkpoint; gives the goldens by name."""
    folder = root / "sdxl"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint().save_pretrained(folder)
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    out = parts(pipe)
    runs = {
        "ddim": (DDIMScheduler, 3.0, "red apple"),
        "euler": (EulerDiscreteScheduler, 3.0, "red apple"),
        "plain": (EulerDiscreteScheduler, 1.0, None),
        # Without a negative prompt the text that guides is zeros, unless the checkpoint says otherwise.
        "zeros": (DDIMScheduler, 3.0, None),
    }
    for name, how in runs.items():
        out |= {f"{name}.{key}": value for key, value in run(pipe, *how).items()}
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    out["empty.latents.3"] = run(pipe, DDIMScheduler, 3.0, None)["latents.3"]
    return {"sdxl": {key: value.contiguous() for key, value in out.items()}}
