"""The noise side of training, the same for both models: at which times they are taught, and their loss.

Knows latents and times; what the model is shown beside them is the caller's.
"""

from collections.abc import Callable

import torch


def draw_timesteps(count: int, noisy_from: int, noisy_share: float) -> torch.Tensor:
    """Times in 0..1000; a share of them at `noisy_from` or above."""
    spread = (torch.arange(count) + torch.rand(count)) / count  # stratified: every batch sees all noise levels
    noisy = torch.rand(count) < noisy_share
    return torch.where(noisy, noisy_from + spread * (1000 - noisy_from), spread * 1000).long().clamp(0, 999)


def v_loss(latents: torch.Tensor, t: torch.Tensor, alphas: torch.Tensor,
           predict: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    """The v-prediction loss, and its part from the noisiest steps. `predict` is shown the noisy latents."""
    signal, noise_level = (a.view(-1, 1, 1, 1) for a in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
    noise = torch.randn_like(latents)
    v = predict(signal * latents + noise_level * noise)
    errors = (v - (signal * noise - noise_level * latents)).square().mean((1, 2, 3))
    return errors.mean(), {"noisy": errors.detach()[t >= 900].mean().item()}
