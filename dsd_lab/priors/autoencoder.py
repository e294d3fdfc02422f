"""The way from pictures to a network's latents and back, as each kind of autoencoder has it."""

import torch
from torch import Tensor, nn

Affine = tuple[float | Tensor, float | Tensor]


def compression(vae: nn.Module | None) -> int:
    """How many pixels a latent is wide."""
    if vae is None:
        return 1
    widths = vae.config.get("block_out_channels") or vae.config.encoder_block_out_channels
    return 2 ** (len(widths) - 1)


def to_latents(pixels: Tensor, vae: nn.Module | None) -> Tensor:
    """Pixels in [-1, 1] to what the network sees: their latents, in the autoencoder's dtype, or
    themselves without autoencoder.
    """
    if vae is None:
        return pixels
    encoded = vae.encode(pixels.to(vae.dtype))  # a distribution, or its one value under some name
    latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
    factor, shift = latent_factor(vae, latents)
    return (latents - shift) * factor


def from_latents(x: Tensor, vae: nn.Module | None) -> Tensor:
    """The reverse of `to_latents`."""
    if vae is None:
        return x
    x = x.to(vae.dtype)
    factor, shift = latent_factor(vae, x)
    return vae.decode(x / factor + shift).sample


def latent_factor(vae: nn.Module, like: Tensor) -> Affine:
    """The factor and the shift between an autoencoder's latents and the network's: numbers, or
    those of each channel where it has their mean and standard deviation.
    """
    config = vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return config.scaling_factor, config.get("shift_factor") or 0.0
    mean, std = (torch.tensor(values).to(like)[:, None, None] for values in (mean, std))
    return config.scaling_factor / std, mean
