"""What the two networks of a mini learn by: the losses of reconstruction and of denoising."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..schedule import NoiseSchedule
from ..shapes import Latents


def autoencoder_loss(network: nn.Module, pictures: Tensor, noise: Tensor) -> Tensor:
    """Squared error, a little absolute error for crisp edges, and a touch of KL that keeps the
    latents near N(0, 1).

    network: (pictures, noise) -> reconstruction, latents' mean and log variance.
    """
    reconstruction, mean, logvar = network(pictures, noise)
    error = reconstruction - pictures
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return error.square().mean() + 0.1 * error.abs().mean() + 1e-4 * kl


def denoising_loss(
    network: nn.Module,
    schedule: NoiseSchedule,
    x0: Latents,
    conditions: Sequence[Tensor | None],
    generator: torch.Generator,
    gamma: float | None,
    together: int = 1,
) -> Tensor:
    """Squared error of the native prediction at a uniform t, weighted so that it is min(SNR, gamma)
    on x0, or not weighted where gamma is None.

        x_t = alpha x0 + sigma eps;    |output - target|^2 min(SNR, gamma) / scale
        SNR = alpha^2 / sigma^2;    scale = SNR for eps, SNR + 1 for v, 1 for x0

    network: (x_t, t, *conditions) -> its native output. together: how many items, one after the
    other, are views of an object, at one t; half of such sets also share one noise, as a run's
    views share e* (ours). Source: arXiv 2303.09556.
    """
    t = torch.randint(len(schedule), (len(x0) // together,), generator=generator)
    t, eps = t.repeat_interleave(together), torch.randn(x0.shape, generator=generator)
    if together > 1:
        sets = eps.unflatten(0, (-1, together))
        one = torch.rand(len(sets), generator=generator) < 0.5
        sets[one] = sets[one, :1].clone()
    eps = eps.to(x0)
    alpha, sigma = schedule.at("alpha", t, x0), schedule.at("sigma", t, x0)
    snr = (alpha / sigma) ** 2
    target, scale = {
        "epsilon": (eps, snr),
        "v_prediction": (alpha * eps - sigma * x0, snr + 1),
        "sample": (x0, torch.ones_like(snr)),
    }[schedule.prediction_type]
    output = network(alpha * x0 + sigma * eps, t.to(x0.device), *conditions)
    weight = 1.0 if gamma is None else snr.clamp(max=gamma) / scale
    return (weight * (output - target).square()).mean()
