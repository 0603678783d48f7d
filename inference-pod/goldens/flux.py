"""A tiny FLUX checkpoint, and what diffusers computes with it.

Knows what this family does in its own way; does not know the others.
"""

import shutil

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTokenizer

import t5
from parts import PROMPTS, enliven, text_encoder, train_bpe, vae

SIZE = (80, 48)
LENGTH = 24
# Of the prompt as T5 reads it; `max_sequence_length` of `__call__`.
T5_LENGTH = 512


def transformer(seed, **more):
    model = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=40,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 8, 4),
        **more,
    )
    return enliven(model, seed)


def checkpoint():
    """FLUX.1-dev's choices: CLIP for the whole prompt, T5 for its words, guidance as an input, shifts by size."""
    vocab, merges = train_bpe(60)
    tokenizer_2 = t5.tokenizer()
    return FluxPipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=LENGTH),
        tokenizer_2=tokenizer_2,
        text_encoder=text_encoder(vocab, "quick_gelu", LENGTH),
        text_encoder_2=t5.text_encoder(len(tokenizer_2), 40),
        transformer=transformer(7, guidance_embeds=True),
        vae=vae(
            [8, 8, 8],
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=100
        ),
    )


def run(pipe, guidance):
    """Four steps: latents after each, as the VAE sees them, and the picture in 0..1."""
    record = {}

    def keep(pipe, step, _time, tensors):
        record[f"latents.{step}"] = pipe._unpack_latents(tensors["latents"], SIZE[1], SIZE[0], pipe.vae_scale_factor)
        return tensors

    record["image"] = pipe(
        PROMPTS[0],
        num_inference_steps=4,
        guidance_scale=guidance,
        width=SIZE[0],
        height=SIZE[1],
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


def alone(pipe, out, guidance):
    """A batch of two, at times and with guidance of their own."""
    height, width = out["sample"].shape[2:]
    packed = pipe._pack_latents(out["sample"], 2, 16, height, width)
    velocity = pipe.transformer(
        hidden_states=packed,
        timestep=out["times"] / 1000,
        guidance=guidance,
        pooled_projections=out["pooled"],
        encoder_hidden_states=out["text"],
        txt_ids=torch.zeros(T5_LENGTH, 3),
        img_ids=pipe._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32),
    ).sample
    return pipe._unpack_latents(velocity, 4 * height, 4 * width, pipe.vae_scale_factor)


@torch.no_grad()
def parts(pipe):
    read = pipe.tokenizer_2(PROMPTS, padding="max_length", max_length=T5_LENGTH, truncation=True, return_tensors="pt")
    out = {"tokens": read.input_ids}
    out["text"], out["pooled"], _ = pipe.encode_prompt(PROMPTS[:2])
    out["sample"] = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(11))
    out["times"] = torch.tensor([801.5, 41.0])
    out["guidance"] = torch.tensor([3.5, 1.0])
    out["transformer"] = alone(pipe, out, out["guidance"])
    latents = out["sample"][:1] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    out["decoded"] = pipe.vae.decode(latents).sample
    return out


@torch.no_grad()
def write_schnell(root, pipe, out):
    """Only what FLUX.1-schnell has in another way: no guidance, and one shift for all sizes."""
    folder = root / "flux_schnell"
    shutil.rmtree(folder, ignore_errors=True)
    pipe.transformer = transformer(8, guidance_embeds=False)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe.transformer.save_pretrained(folder / "transformer")
    pipe.scheduler.save_pretrained(folder / "scheduler")
    return {"transformer": alone(pipe, out, None)} | run(pipe, 3.5)


def write(root):
    """Writes the checkpoints; gives the goldens by name."""
    folder = root / "flux"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint().save_pretrained(folder)
    pipe = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    out = parts(pipe)
    out |= run(pipe, 3.5)
    goldens = {"flux": out, "flux_schnell": write_schnell(root, pipe, out)}
    return {name: {key: value.contiguous() for key, value in out.items()} for name, out in goldens.items()}
