"""What the two networks of a mini learn by: the losses of reconstruction and of denoising."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..schedule import NoiseSchedule
from ..shapes import Latents


class Share(NamedTuple):
    """What process number `index` of `count` takes of a batch, which all of them draw alike.

    loss(batch) = 1/count sum_i weight_i loss(part_i);    weight_i = count |part_i| / |batch|

    So gradients that are averaged over processes are those of one process on the whole batch.
    together: items, one after the other, that no part may divide.
    """

    index: int = 0
    count: int = 1
    together: int = 1

    def of(self, batch: Tensor) -> Tensor:
        """Its part of a batch (B, ...): the parts' sizes differ by at most `together`."""
        if self.count == 1:
            return batch
        sets = batch.unflatten(0, (-1, self.together))
        return sets.tensor_split(self.count)[self.index].flatten(0, 1)

    def weight(self, batch: int) -> float:
        """Of the mean loss of its part of a batch of so many."""
        sets = batch // self.together
        size = sets // self.count + (self.index < sets % self.count)
        return self.count * size / sets


WHOLE = Share()


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
    share: Share = WHOLE,
) -> Tensor:
    """Squared error of the native prediction at a uniform t, weighted so that it is min(SNR, gamma)
    on x0, or not weighted where gamma is None; the mean over a share of the batch, whose draws do
    not depend on the share.

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
    x0, t, eps = share.of(x0), share.of(t), share.of(eps).to(x0)
    conditions = [part if part is None else share.of(part) for part in conditions]
    alpha, sigma = schedule.at("alpha", t, x0), schedule.at("sigma", t, x0)
    snr = (alpha / sigma) ** 2
    scale = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[
        schedule.prediction_type
    ]
    target = schedule.to_output(x0, eps, t)
    output = network(alpha * x0 + sigma * eps, t.to(x0.device), *conditions)
    weight = 1.0 if gamma is None else snr.clamp(max=gamma) / scale
    return (weight * (output - target).square()).mean()
