"""Tiny Stable Diffusion 3 checkpoints, and what diffusers computes with them.

Knows what this family does in its own way; does not know the others.
"""

import shutil

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import t5
from parts import PROMPTS, enliven, text_encoder, train_bpe, vae

SIZE = (80, 48)
LENGTH = 24


def transformer(**more):
    """Text is padded from 32 + 24 to 64 channels; the grid of positions is cut from the middle of 12 × 12."""
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=16 + 20,
        out_channels=16,
        pos_embed_max_size=12,
        **more,
    )
    return enliven(model, 5)


def checkpoint():
    """SD3's choices: two text encoders with projections and no T5, 16 channels with a shift, no quant convolutions."""
    vocab, merges = train_bpe(60)
    # The end token of OpenAI's own exports: the encoder then reads at the greatest token instead.
    first = {"projection_dim": 16, "eos_token_id": 2}
    second = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "projection_dim": 20}
    return StableDiffusion3Pipeline(
        tokenizer=CLIPTokenizer(vocab, merges, model_max_length=LENGTH),
        tokenizer_2=CLIPTokenizer(vocab, merges, model_max_length=LENGTH, pad_token="!"),
        tokenizer_3=None,
        text_encoder=text_encoder(vocab, "quick_gelu", LENGTH, CLIPTextModelWithProjection, 1, **first),
        text_encoder_2=text_encoder(vocab, "gelu", LENGTH, CLIPTextModelWithProjection, 4, **second),
        text_encoder_3=None,
        transformer=transformer(),
        vae=vae(
            [8, 8, 8],
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def run(pipe, guidance):
    """Four steps: latents after each, picture in 0..1."""
    record = {}

    def keep(_pipe, step, _time, tensors):
        record[f"latents.{step}"] = tensors["latents"].clone()
        return tensors

    record["image"] = pipe(
        PROMPTS[0],
        negative_prompt="red apple",
        num_inference_steps=4,
        guidance_scale=guidance,
        width=SIZE[0],
        height=SIZE[1],
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        callback_on_step_end=keep,
    ).images
    return record


def alone(transformer, out):
    """A batch of two, at times of their own; diffusers counts them from 0 to 1000."""
    text = {"encoder_hidden_states": out["text"], "pooled_projections": out["pooled"]}
    return transformer(out["sample"], timestep=out["times"], **text).sample


@torch.no_grad()
def parts(pipe):
    out = {}
    out["text"], _, out["pooled"], _ = pipe.encode_prompt(PROMPTS[:2], None, None, do_classifier_free_guidance=False)
    out["sample"] = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(11))
    out["times"] = torch.tensor([801.5, 41.0])
    out["transformer"] = alone(pipe.transformer, out)
    latents = out["sample"][:1] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    out["decoded"] = pipe.vae.decode(latents).sample
    return out


@torch.no_grad()
def write_sd35(root, out):
    """Only what 3.5 adds: norms of queries and keys, and a second attention of the pixels alone."""
    folder = root / "sd35"
    shutil.rmtree(folder, ignore_errors=True)
    transformer(qk_norm="rms_norm", dual_attention_layers=(0,)).save_pretrained(folder / "transformer")
    model = SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer", local_files_only=True)
    return {"transformer": alone(model, out)}


@torch.no_grad()
def write_t5(root):
    """Only what is added to `sd3`: the third text encoder, here one of the first generation of T5."""
    folder = root / "sd3t5"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = t5.tokenizer()
    more = {"feed_forward_proj": "relu", "relative_attention_num_buckets": 12, "relative_attention_max_distance": 40}
    text_encoder_3 = t5.text_encoder(len(tokenizer), 64, **more)
    tokenizer.save_pretrained(folder / "tokenizer_3")
    text_encoder_3.save_pretrained(folder / "text_encoder_3")
    added = {"text_encoder_3": text_encoder_3, "tokenizer_3": tokenizer}
    pipe = StableDiffusion3Pipeline.from_pretrained(root / "sd3", **added, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    read = tokenizer(PROMPTS, padding="max_length", max_length=256, truncation=True, return_tensors="pt").input_ids
    out = {"tokens": read, "text": text_encoder_3(read[[0, 4]])[0]}
    out |= {f"guided.{part}": value for part, value in run(pipe, 3.0).items()}
    for kind in ["exponential", "linear"]:
        shifting = {"use_dynamic_shifting": True, "time_shift_type": kind, "base_image_seq_len": 16}
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, max_image_seq_len=100, **shifting)
        out |= {f"{kind}.{part}": value for part, value in run(pipe, 1.0).items() if part != "image"}
    return out


def write(root):
    """Writes the checkpoints; gives the goldens by name."""
    folder = root / "sd3"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint().save_pretrained(folder)
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    out = parts(pipe)
    sd35 = write_sd35(root, out)
    for key, guidance in [("guided", 3.0), ("plain", 1.0)]:
        out |= {f"{key}.{part}": value for part, value in run(pipe, guidance).items()}
    # The rest are zeros, where T5 would be.
    out["text"] = out["text"][:, : LENGTH + 1]
    goldens = {"sd3": out, "sd35": sd35, "sd3t5": write_t5(root)}
    return {name: {key: value.contiguous() for key, value in out.items()} for name, out in goldens.items()}
