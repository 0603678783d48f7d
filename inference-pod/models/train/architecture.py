"""The three networks and the noise schedule, as configurations of the standard classes.

Everything here ends up in the exported JSON files, so that diffusers, and any engine that reads its layout, rebuilds
the same networks. Together they hold fewer than 8 M parameters: under 16 MB in fp16.
"""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

SIDE = 64
LATENT_CHANNELS = 16
LATENT_SIDE = 8  # SIDE / 8: 64 positions keep a denoise step cheap, and 16 channels keep as many numbers as 16x16x4
TEXT_LENGTH = 16
TEXT_WIDTH = 128


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIDE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.0,
    )


def unet(in_channels: int = LATENT_CHANNELS, width: tuple[int, int] = (96, 128), heads: tuple[int, int] = (3, 4)):
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        block_out_channels=width,
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=heads,  # the number of heads, as Stable Diffusion 1 writes it: 32 channels each
        cross_attention_dim=TEXT_WIDTH,
    )


def edit_unet() -> UNet2DConditionModel:
    """InstructPix2Pix's: the picture to edit beside the noisy one, so twice the channels in. Narrower: 10 MB in all."""
    return unet(2 * LATENT_CHANNELS, (64, 80), (2, 2))


def text_encoder(vocabulary: int, begin: int, end: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModel(config)


def sampler() -> DDIMScheduler:
    """Stable Diffusion's own betas (finite sigmas for every solver); v-prediction, because at high noise, where the
    words decide what is drawn, an error in epsilon says next to nothing about the picture."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())
