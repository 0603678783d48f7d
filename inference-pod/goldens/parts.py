"""What every tiny checkpoint is made of: a vocabulary, random weights that hide no mistake, and small parts.

Knows configs of single components; does not know pipelines.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CORPUS = [
    "a photo of a cat",
    "a painting of a dog on the beach",
    "smiling face with heart eyes",
    "red apple",
    "a green tree and a blue house",
    "the quick brown fox jumps over the lazy dog",
]
PROMPTS = [
    "a photo of a cat",
    "",
    "  A  Photo\tof the FOX's 12 hats!? ",
    "café 猫 🐈 naïve",
    " ".join(["the quick brown fox jumps over the lazy dog"] * 20),
]


def byte_alphabet():
    """The 256 printable stand-ins for bytes of GPT-2's BPE, which CLIP uses too."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + n) for n in range(len(moved))]


def merged(word, pair):
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def train_bpe(count):
    """CLIP's layout: bytes, bytes with `</w>`, merges, begin, end."""
    words = [(*word[:-1], word[-1] + "</w>") for line in CORPUS for word in line.split()]
    alphabet = byte_alphabet()
    vocab, merges = alphabet + [symbol + "</w>" for symbol in alphabet], []
    while len(merges) < count:
        pairs = [pair for word in words for pair in zip(word, word[1:])]
        if not pairs:
            break
        best = max(sorted(set(pairs)), key=pairs.count)
        merges.append(best)
        vocab.append("".join(best))
        words = [merged(word, best) for word in words]
    vocab += [BEGIN, END]
    return {token: number for number, token in enumerate(vocab)}, merges


def enliven(model, seed):
    """Fresh modules have unit norms, zero biases and near-uniform attention, which would hide a swapped weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                gain = 1.0 if "embedding.weight" in name else parameter[0].numel() ** -0.5
                parameter.copy_(noise * gain)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def text_encoder(vocab, act, length, kind=CLIPTextModel, seed=1, **more):
    config = {
        "vocab_size": len(vocab),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": length,
        "hidden_act": act,
        "bos_token_id": vocab[BEGIN],
        "eos_token_id": vocab[END],
        "pad_token_id": vocab[END],
    }
    return enliven(kind(CLIPTextConfig(**config | more)), seed)


def vae(channels, **more):
    stages = len(channels)
    config = AutoencoderKL(
        **more,
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * stages,
        up_block_types=["UpDecoderBlock2D"] * stages,
        layers_per_block=1,
        norm_num_groups=4,
    )
    return enliven(config, 2)


def unet(cross_attention_dim=32, **config):
    config = {"sample_size": 16, "cross_attention_dim": cross_attention_dim, "norm_num_groups": 4} | config
    model = enliven(UNet2DConditionModel(**config), 3)
    # Euler multiplies the prediction by sigmas up to 15: a weak one keeps its rounding far below the tolerance.
    model.conv_out.weight.data *= 0.25
    return model
